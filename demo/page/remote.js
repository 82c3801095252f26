// Requests to the server. Every failure is an Error whose message a person can read.

export class Away extends Error {}

export class Expired extends Error {}

export async function post(path, body) {
  return (await answered(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) })).json();
}

export async function get(path) {
  return (await answered(path, {})).json();
}

// A picture becomes a reference: its name on the server. The file stays here, to be sent again after a restart.
const sent = new Map();

export async function upload(file) {
  const { upload: token } = await (await answered("api/uploads", { method: "POST", body: file })).json();
  sent.set(token, file);
  return token;
}

export function localPicture(token) {
  return sent.has(token) ? URL.createObjectURL(sent.get(token)) : null;
}

export async function sendAgain(tokens) {
  const known = tokens.filter((token) => sent.has(token));
  for (const token of known) await upload(sent.get(token));
  return known.length === tokens.length;
}

export async function download(path, request) {
  const form = new FormData();
  form.set("request", JSON.stringify(request));
  const response = await answered(path, { method: "POST", body: form });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") ?? "")?.[1] ?? "ranking";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export const thumbnail = (id) => `api/thumbnail?id=${encodeURIComponent(id)}`;
export const picture = (id) => `api/image?id=${encodeURIComponent(id)}`;

// Runs one request at a time, and of those that wait only the last.
export function latest(ask, show, fail) {
  let running = false;
  let next = null;
  return async (wanted) => {
    next = wanted;
    if (running) return;
    running = true;
    while (next !== null) {
      const now = next;
      next = null;
      try {
        show(await ask(now), now);
      } catch (error) {
        if (next === null) fail(error, now);
      }
    }
    running = false;
  };
}

async function answered(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Away("The server does not answer. Trying again …");
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  const line = told.error ?? `The server answered ${response.status}.`;
  throw response.status === 410 ? new Expired(line) : new Error(line);
}

// Requests to the server. Every failure is an Error with a readable message.

export class ConnectionError extends Error {}

export class ExpiredUploadError extends Error {}

export async function post(path, body, signal) {
  return (await request(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal })).json();
}

export async function get(path) {
  return (await request(path, {})).json();
}

const uploads = new Map(); // token → file, to upload again after a restart of the server

// Uploads an image and returns its token.
export async function upload(file) {
  const { upload: token } = await (await request("api/uploads", { method: "POST", body: file })).json();
  uploads.set(token, file);
  return token;
}

export function localImageUrl(token) {
  return uploads.has(token) ? URL.createObjectURL(uploads.get(token)) : null;
}

// Uploads the files of these tokens again. Returns whether all of them were available.
export async function uploadAgain(tokens) {
  const available = tokens.filter((token) => uploads.has(token));
  for (const token of available) await upload(uploads.get(token));
  return available.length === tokens.length;
}

export async function download(path, body) {
  const form = new FormData();
  form.set("request", JSON.stringify(body));
  const response = await request(path, { method: "POST", body: form });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") ?? "")?.[1] ?? "ranking";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export const thumbnailUrl = (id) => `api/thumbnail?id=${encodeURIComponent(id)}`;
export const imageUrl = (id) => `api/image?id=${encodeURIComponent(id)}`;

// Sends one request at a time. If several wait, only the latest is sent.
export function latest(send, onResult, onError) {
  let running = false;
  let waiting = null;
  return async (state) => {
    waiting = state;
    if (running) return;
    running = true;
    while (waiting !== null) {
      const sent = waiting;
      waiting = null;
      try {
        onResult(await send(sent), sent);
      } catch (error) {
        if (waiting === null) onError(error, sent);
      }
    }
    running = false;
  };
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new ConnectionError("The server is not responding. Retrying.");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const message = body.error ?? `The server returned status ${response.status}.`;
  throw response.status === 410 ? new ExpiredUploadError(message) : new Error(message);
}

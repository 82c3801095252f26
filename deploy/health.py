"""Exit status 0 if the server of this container answers, with the token or the user and password of its environment."""

import base64
import os
import sys
from urllib.request import Request, urlopen

ADDRESS = os.environ.get("MMRETRIEVE_HEALTH", "http://127.0.0.1:8000/api/health")

token, user = os.environ.get("MMRETRIEVE_TOKEN"), os.environ.get("MMRETRIEVE_USER", "")

request = Request(
    ADDRESS, headers={"Authorization": f"Bearer {token}" if token else f"Basic {base64.b64encode(user.encode()).decode()}"}
)
try:
    with urlopen(request, timeout=4) as response:
        sys.exit(response.status != 200)
except OSError as error:
    sys.exit(f"{ADDRESS}: {error}")

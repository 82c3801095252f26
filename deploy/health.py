"""Exit status 0 if the server of this container answers, with the token of its environment."""

import os
import sys
from urllib.request import Request, urlopen

ADDRESS = os.environ.get("MMRETRIEVE_HEALTH", "http://127.0.0.1:8000/api/health")

request = Request(ADDRESS, headers={"Authorization": f"Bearer {os.environ.get('MMRETRIEVE_TOKEN', '')}"})
try:
    with urlopen(request, timeout=4) as response:
        sys.exit(response.status != 200)
except OSError as error:
    sys.exit(f"{ADDRESS}: {error}")

"""A server of a gallery, and a client with the standard library only: `python examples/serve_and_call.py`.

In the shell, `mmretrieve serve GALLERY` starts the server.
"""

import base64
import json
import socket
import threading
from urllib.request import Request, urlopen

import mmretrieve as mm
from mmretrieve.server.app import create_app
from mmretrieve.server.auth import Auth
from mmretrieve.server.limits import Limits
from mmretrieve.server.run import make_server

TOKEN = "correct-horse"
retriever = mm.Retriever.open(mm.wardrobe.gallery_folder())
listening = socket.create_server(("127.0.0.1", 0))
server = make_server(create_app(retriever, auth=Auth(token=TOKEN)), Limits(), log_level="critical")
thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
thread.start()

reference = mm.wardrobe.pictures_folder() / "red-checked-dress-1815.png"
query = {"image": base64.b64encode(reference.read_bytes()).decode(), "prompt": "in blue", "k": 3, "where": "kind = 'shirt'"}
headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
address = f"http://127.0.0.1:{listening.getsockname()[1]}/api/search"
with urlopen(Request(address, json.dumps(query).encode(), headers)) as response:
    for hit in json.load(response)["hits"]:
        print(hit["rank"], hit["id"], round(hit["score"], 2))

server.should_exit = True
thread.join()

# prints:
# 1 blue-checked-shirt-0981.png 1.89
# 2 blue-checked-shirt-0546.png 1.84
# 3 blue-checked-shirt-1933.png 1.83

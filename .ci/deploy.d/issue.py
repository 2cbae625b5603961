# As the IAM container's user: the socket takes no other.
import encodings.idna, http.client, json, os, socket, sys
os.setgroups([])
os.setgid(65532)
os.setuid(65532)
connection = http.client.HTTPConnection("jwksd")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(sys.argv[1])
body = json.dumps({"audience": "client", "algorithm": "RS256"})
connection.request("POST", "/oauth/keys/keypair", body, {"Content-Type": "application/json"})
answer = connection.getresponse()
text = answer.read().decode()
assert answer.status == 200, text
print("issued:", json.loads(text)["keyId"])

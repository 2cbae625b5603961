# Asks, on a new connection each time, until /run/enough is there: every answer is a set.
import http.client, json, os

answers = 0
while not os.path.exists("/run/enough"):
    connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=30)
    connection.request("GET", "/.well-known/jwks.json")
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200 and len(json.loads(body)["keys"]) > 100, (answers, answer.status, body[:200])
    connection.close()
    answers += 1
print(f"{answers} requests over five restarts, and each was answered")

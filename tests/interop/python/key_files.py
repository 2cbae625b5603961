"""Signs a token by the private half of each accepted fixture, and has it verified by cryptography,
jwcrypto and Node's jose through the set that jwksd renders of the fixture alone.

    key_files.py JWKSD NODE-DIRECTORY
"""

import base64
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

from cryptography.hazmat.primitives import hashes, serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from jwcrypto import jwk, jws

FIXTURES = pathlib.Path(__file__).parents[2] / "fixtures" / "keys"
HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}


def b64u(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def private_halves(data):
    """The private keys in a file, as far as plain readers find one."""
    for password in None, b"test":
        for load in ser.load_pem_private_key, ser.load_der_private_key:
            try:
                yield load(data, password)
            except (ValueError, TypeError):
                pass
    try:
        members = json.loads(data)
        for member in members.get("keys", [members]):
            if member.get("d"):
                # Whole numbers have their full width here, whatever the fixture has.
                yield from private_halves(jwk.JWK(**full_width(member)).export_to_pem(True, None))
    except (ValueError, AttributeError):
        pass


def full_width(member):
    width = {"P-256": 32, "P-384": 48, "P-521": 66}.get(member.get("crv"))
    widen = lambda value: b64u(decoded(value).lstrip(b"\0").rjust(width, b"\0"))
    return {name: widen(value) if width and name in "xyd" else value for name, value in member.items()}


def thumbprint(key):
    return jwk.JWK.from_pem(key.public_key().public_bytes(
        ser.Encoding.PEM, ser.PublicFormat.SubjectPublicKeyInfo)).thumbprint()


def known_halves(manifest):
    halves = {}
    for stem, entry in manifest.items():
        for file in entry["files"]:
            for key in private_halves((FIXTURES / "accepted" / file).read_bytes()):
                halves[thumbprint(key)] = key
    return halves


def sign(key, algorithm, kid):
    header = {"alg": algorithm, "kid": kid, "typ": "JWT"}
    message = ".".join(b64u(json.dumps(part).encode()) for part in (header, {"sub": "fixture"}))
    data, digest = message.encode(), HASHES.get(algorithm[2:])
    if algorithm.startswith("RS"):
        signature = key.sign(data, padding.PKCS1v15(), digest)
    elif algorithm.startswith("PS"):
        signature = key.sign(data, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
    elif algorithm.startswith("ES"):
        width = (key.curve.key_size + 7) // 8
        numbers = utils.decode_dss_signature(key.sign(data, ec.ECDSA(digest)))
        signature = b"".join(number.to_bytes(width, "big") for number in numbers)
    else:
        signature = key.sign(data)
    return f"{message}.{b64u(signature)}"


def by_cryptography(token, published):
    """Raises where the token is not by the published key."""
    message, _, signature = token.rpartition(".")
    data, signature, algorithm = message.encode(), decoded(signature), published["alg"]
    digest = HASHES.get(algorithm[2:])
    if published["kty"] == "RSA":
        numbers = [int.from_bytes(decoded(published[name]), "big") for name in "en"]
        key = rsa.RSAPublicNumbers(*numbers).public_key()
        scheme = padding.PKCS1v15() if algorithm[0] == "R" else padding.PSS(padding.MGF1(digest), digest.digest_size)
        key.verify(signature, data, scheme, digest)
    elif published["kty"] == "EC":
        curve = CURVES[published["crv"]]
        x, y = (decoded(published[name]) for name in "xy")
        assert len(x) == len(y) == (curve.key_size + 7) // 8, "full width"
        key = ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\4" + x + y)
        half = len(signature) // 2
        numbers = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
        key.verify(utils.encode_dss_signature(*numbers), data, ec.ECDSA(digest))
    else:
        ed25519.Ed25519PublicKey.from_public_bytes(decoded(published["x"])).verify(signature, data)


def by_jwcrypto(token, rendered, kid):
    key = jwk.JWKSet.from_json(rendered).get_key(kid)
    received = jws.JWS()
    received.allowed_algs = [key.get("alg")]
    received.deserialize(token, key)


def render(binary, stem, files):
    with tempfile.TemporaryDirectory() as keys:
        at = []
        for file in files:
            shutil.copy(FIXTURES / "accepted" / file, keys)
            if file.endswith(".meta.json"):
                # The dates that are declared may lie behind.
                start = json.loads((FIXTURES / "accepted" / file).read_text()).get("validFrom")
                at = ["--at", start] if start else []
        command = [binary, "render", "--keys", keys, *at]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main(binary, node):
    manifest = json.loads((FIXTURES / "manifest.json").read_text())["accepted"]
    halves, cases, failures, without = known_halves(manifest), [], [], []
    for stem, entry in manifest.items():
        rendered = render(binary, stem, entry["files"])
        published = {key["kid"]: key for key in json.loads(rendered)["keys"]}
        for key in entry["keys"]:
            kid, half = key["kid"], halves.get(key["thumbprint"])
            if kid not in published:
                failures.append(f"{stem}: {kid} is not published")
            elif half is None:
                without.append(stem)
            else:
                token = sign(half, key["algorithm"], kid)
                cases.append({"stem": stem, "token": token, "set": json.loads(rendered)})
                for name, verify in [
                    ("cryptography", lambda: by_cryptography(token, published[kid])),
                    ("jwcrypto", lambda: by_jwcrypto(token, rendered, kid)),
                ]:
                    try:
                        verify()
                    except Exception as error:
                        failures.append(f"{stem}: {name}: {error!r}")
    script = pathlib.Path(node) / "key-files.mjs"
    shutil.copy(pathlib.Path(__file__).parents[1] / "node" / "key-files.mjs", script)
    jose = subprocess.run(["node", script.name], cwd=node, input=json.dumps(cases), check=True, capture_output=True, text=True)
    failures += json.loads(jose.stdout)
    for failure in failures:
        print("FAILED", failure)
    print(f"{len(manifest)} entries, {len(cases)} tokens, each verified by cryptography, jwcrypto and jose; "
          f"{len(without)} keys whose private half is nowhere ({', '.join(without)}); {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]).resolve(), sys.argv[2]))

"""A certificate authority for one run, and how each kind of client is made to trust it."""

import asyncio
import ssl


async def command(*arguments):
    process = await asyncio.create_subprocess_exec(
        *arguments, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE)
    _, errors = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, arguments))}: {errors.decode()}")


class Authority:
    """`ca` is its certificate; `certificate` and `key` are those of a server on 127.0.0.1."""

    PASSWORD = "interop"

    def __init__(self, directory):
        directory.mkdir()
        self.ca, self.store = directory / "ca.crt", directory / "ca.p12"
        self.certificate, self.key = directory / "tls.crt", directory / "tls.key"

    async def establish(self):
        new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
               "-nodes", "-days", "2"]
        ca_key = self.ca.with_suffix(".key")
        await command(*new, "-subj", "/CN=interop", "-keyout", ca_key, "-out", self.ca)
        await command(*new, "-subj", "/CN=127.0.0.1", "-keyout", self.key, "-out", self.certificate,
                      "-CA", self.ca, "-CAkey", ca_key, "-addext", "subjectAltName=IP:127.0.0.1",
                      "-addext", "basicConstraints=critical,CA:FALSE",
                      "-addext", "extendedKeyUsage=serverAuth")

    async def trusted_by_java(self):
        await command("keytool", "-importcert", "-noprompt", "-alias", "interop", "-file", self.ca,
                      "-keystore", self.store, "-storetype", "PKCS12", "-storepass", self.PASSWORD)

    def environment(self):
        """By which Node, OpenSSL, Go, Python's requests, Java, our Rust client and the browser trust
        it."""
        options = {"trustStore": self.store, "trustStoreType": "PKCS12",
                   "trustStorePassword": self.PASSWORD}
        java = " ".join(f"-Djavax.net.ssl.{name}={value}" for name, value in options.items())
        return {"NODE_EXTRA_CA_CERTS": str(self.ca), "SSL_CERT_FILE": str(self.ca),
                "REQUESTS_CA_BUNDLE": str(self.ca), "JAVA_TOOL_OPTIONS": java,
                "INTEROP_CERTIFICATE": str(self.certificate)}

    def serving(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context

"""A proxy that connects the host names of Azure to the services of an emulator, so that a client needs no settings.

It is what a company's TLS-inspecting proxy is: a client has HTTPS_PROXY and one more CA, and nothing else. Names that
are not of a service of the emulator are refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509 import load_pem_x509_certificates

from keysync.emulator import Endpoints


class AzureNames:
    """Serves one connection after CONNECT: TLS with the name's certificate on one side, the service on the other."""

    def __init__(self, ports: Mapping[str, int], server: ssl.SSLContext, upstream: ssl.SSLContext) -> None:
        self.refused: set[str] = set()
        self._ports = ports
        self._server = server
        self._upstream = upstream

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):  # the client has disconnected
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split()
            host = head[1].rpartition(":")[0].lower()
            if head[0] != "CONNECT" or host not in self._ports:
                self.refused.add(host or head[1])
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            else:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await writer.drain()
                await self._relay(reader, writer, self._ports[host])
        writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        await writer.start_tls(self._server)
        service = await asyncio.open_connection("localhost", port, ssl=self._upstream)
        await asyncio.gather(_copy(reader, service[1]), _copy(service[0], writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


def ports_of(endpoints: Endpoints) -> dict[str, int]:
    """The ports of the services by the names that they have in Azure."""
    main = urlsplit(endpoints.authority).port or 0
    shared = ("login.microsoftonline.com", "management.azure.com", "graph.microsoft.com", "graph.windows.net")
    vaults = {f"{name}.vault.azure.net": urlsplit(url).port or 0 for name, url in endpoints.vaults.items()}
    return {**dict.fromkeys(shared, main), **vaults}


@asynccontextmanager
async def azure_names(endpoints: Endpoints, folder: Path) -> AsyncIterator[tuple[AzureNames, dict[str, str]]]:
    """Serve in the running event loop. Yields the proxy, and the variables of a client (HTTPS_PROXY and its CAs).

    `folder` gets the files with both CAs: the proxy's, and the emulator's for what is called on localhost.
    """
    ports = ports_of(endpoints)
    authority = trustme.CA(organization_name="proxy")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*ports).configure_cert(server)
    bundle = folder / "ca.pem"
    bundle.write_bytes(authority.cert_pem.bytes() + endpoints.ca_pem.encode())
    proxy = AzureNames(ports, server, ssl.create_default_context(cadata=endpoints.ca_pem))
    async with await asyncio.start_server(proxy.handle, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
        yield (
            proxy,
            {
                "HTTPS_PROXY": f"http://127.0.0.1:{port}",
                "NO_PROXY": "localhost,127.0.0.1",
                "JAVA_TOOL_OPTIONS": _java_options(bundle, port),
                **dict.fromkeys(names, str(bundle)),
            },
        )


def _java_options(bundle: Path, port: int) -> str:
    """The properties of the proxy on `port` and of the CAs in a PEM file, since Java does not read the other variables."""
    certificates = [pkcs12.PKCS12Certificate(each, None) for each in load_pem_x509_certificates(bundle.read_bytes())]
    password = "public"  # nosec B105  # of certificates, which are no secret
    encryption = serialization.BestAvailableEncryption(password.encode())
    store = bundle.with_name("java.p12")
    store.write_bytes(pkcs12.serialize_java_truststore(certificates, encryption))
    properties = {
        "https.proxyHost": "127.0.0.1",
        "https.proxyPort": port,
        "javax.net.ssl.trustStore": store,
        "javax.net.ssl.trustStoreType": "PKCS12",
        "javax.net.ssl.trustStorePassword": password,
    }
    return " ".join(f"-D{name}={value}" for name, value in properties.items())

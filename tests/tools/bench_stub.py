"""Just enough of AWS for one function on its own: a TLS server that answers every call at once.

A cold start is measured against it, so it keeps no state and does no more than parse a request.
"""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
from pathlib import Path
from urllib.parse import parse_qs

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from emulator.call_record import signed_by

INSTANCE = "i-0123456789abcdef0"
SYSTEM_ROOTS = Path("/etc/ssl/certs/ca-certificates.crt")

PRIVATE_ADDRESS = "<privateIpAddress>10.40.1.7</privateIpAddress>"
GROUP_SET = "<groupSet><item><groupId>sg-0aaaaaaaaaaaaaaaa</groupId><groupName>web</groupName></item></groupSet>"
INTERFACE = f"""<item><networkInterfaceId>eni-0aaaaaaaaaaaaaaaa</networkInterfaceId><subnetId>subnet-0aaaaaaaaaaaaaaaa</subnetId>
<vpcId>vpc-0aaaaaaaaaaaaaaaa</vpcId><ownerId>123456789012</ownerId><status>in-use</status>{PRIVATE_ADDRESS}{GROUP_SET}
<interfaceType>interface</interfaceType><attachment><attachmentId>eni-attach-0aaaaaaaaaaaaaaaa</attachmentId>
<deviceIndex>0</deviceIndex><status>attached</status><deleteOnTermination>true</deleteOnTermination></attachment></item>"""
MAPPING = """<item><deviceName>/dev/sda1</deviceName><ebs><volumeId>vol-0aaaaaaaaaaaaaaaa</volumeId><status>attached</status>
<deleteOnTermination>true</deleteOnTermination></ebs></item>"""
DESCRIBED_INSTANCE = f"""<reservationSet><item><reservationId>r-0aaaaaaaaaaaaaaaa</reservationId><ownerId>123456789012</ownerId>
<instancesSet><item><instanceId>{INSTANCE}</instanceId><imageId>ami-0aaaaaaaaaaaaaaaa</imageId>
<instanceState><code>16</code><name>running</name></instanceState><instanceType>m5.large</instanceType>
<launchTime>2026-11-20T00:00:00.000Z</launchTime><placement><availabilityZone>ap-northeast-1a</availabilityZone></placement>
<subnetId>subnet-0aaaaaaaaaaaaaaaa</subnetId><vpcId>vpc-0aaaaaaaaaaaaaaaa</vpcId>{PRIVATE_ADDRESS}{GROUP_SET}
<rootDeviceType>ebs</rootDeviceType><rootDeviceName>/dev/sda1</rootDeviceName><blockDeviceMapping>{MAPPING}</blockDeviceMapping>
<networkInterfaceSet>{INTERFACE}</networkInterfaceSet></item></instancesSet></item></reservationSet>"""

# What EC2 says beside the request's id; all other answers are empty lists.
EC2_ANSWERS = {
    "DescribeInstances": DESCRIBED_INSTANCE,
    "DescribeNetworkInterfaces": f"<networkInterfaceSet>{INTERFACE}</networkInterfaceSet>",
    "DescribeInstanceAttribute": f"<instanceId>{INSTANCE}</instanceId>",
}


class AwsStub:
    """Listens on 127.0.0.1; `roots` is the file of certificates that its clients are to trust."""

    def __init__(self, folder: Path) -> None:
        self.roots = folder / "roots.pem"
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(*make_certificates(folder, self.roots))
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.endpoint = f"https://127.0.0.1:{self._socket.getsockname()[1]}"
        self.actions: list[str] = []  # of all requests so far
        self.connections = 0  # accepted so far, each with a TLS handshake

    def __enter__(self) -> AwsStub:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed: the bench is over
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        """One connection, until the client leaves it."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with self._tls.wrap_socket(connection, server_side=True) as stream, stream.makefile("rwb") as file:
                while line := file.readline():
                    headers = read_headers(file)
                    if headers.get("expect") == "100-continue":
                        file.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                        file.flush()
                    action, answer = answer_to(line.decode(), headers, read_body(file, headers))
                    self.actions.append(action)
                    file.write(answer)
                    file.flush()
        except OSError:
            pass  # a function that has been measured is killed, connections and all


def read_headers(file: socket.SocketIO) -> dict[str, str]:
    headers = {}
    while (line := file.readline().decode("latin-1").strip()):
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return headers


def read_body(file: socket.SocketIO, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        return file.read(int(headers.get("content-length", 0)))
    body = b""
    while size := int(file.readline().split(b";")[0], 16):
        body += file.read(size)
        file.readline()
    read_headers(file)  # trailers: the SDKs send the checksum there
    return body


def answer_to(request_line: str, headers: dict[str, str], body: bytes) -> tuple[str, bytes]:
    """The action's name, and an answer in the shape that its service's protocol has."""
    service = signed_by(headers.get("authorization", ""))[2]
    if target := headers.get("x-amz-target"):
        return target.rsplit(".", 1)[-1], http("application/x-amz-json-1.0", "{}")
    if service == "s3":
        return f"{request_line.split()[0].title()}Object", http("application/xml", "", 'ETag: "0"\r\nx-amz-version-id: 1\r\n')
    action = parse_qs(body.decode("utf-8", "replace")).get("Action", ["unknown"])[0]
    inner = EC2_ANSWERS.get(action, "") if service == "ec2" else f"<{action}Result/>"
    return action, http("text/xml", f"<{action}Response>{inner}<requestId>stub</requestId></{action}Response>")


def http(kind: str, body: str, more: str = "") -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n{body}".encode()


def make_certificates(folder: Path, roots: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key; its authority goes into `roots`, among as many others as a real host trusts."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority_name = name("Bench authority")
    authority = signed(authority_name, authority_key, authority_name, authority_key, x509.BasicConstraints(ca=True, path_length=0))
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = signed(name("127.0.0.1"), key, authority_name, authority_key, address)
    pem = serialization.Encoding.PEM
    system = SYSTEM_ROOTS.read_bytes() if SYSTEM_ROOTS.exists() else b""
    roots.write_bytes(system + b"\n" + authority.public_bytes(pem))
    certificate_file, key_file = folder / "stub.pem", folder / "stub.key"
    certificate_file.write_bytes(certificate.public_bytes(pem))
    key_file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return certificate_file, key_file


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def signed(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, issuer: x509.Name, issuer_key: ec.EllipticCurvePrivateKey,
    extension: x509.ExtensionType,
) -> x509.Certificate:  # fmt: skip
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).add_extension(extension, critical=False)
    builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
    return builder.sign(issuer_key, hashes.SHA256())

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from edge.protocol import messages
from edge.security import claims, identity
from edge.security.authority import Authority
from edge.security.enrol import Enrolment
from edge.security.identity import Identity, request_for
from edge.security.letters import EnrolAnswer, EnrolRequest
from edge.security.names import of_peer, parse_device
from scoring.errors import (
    AlreadyExistsError,
    EnrolmentError,
    InvalidNameError,
    MalformedPayloadError,
    NotFoundError,
)
from serve.registry import location
from serve.registry.database import Database
from tests import postgres
from tests.support.fleettrust import DAY_S, START, Clock, Fleet


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    (tmp_path / "workspace").mkdir(exist_ok=True)
    with Database(location.resolve(str(tmp_path / "workspace"))) as opened:
        yield opened


@pytest.fixture(params=["sqlite", "postgresql"])
def each_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    (tmp_path / "each").mkdir()
    where = str(tmp_path / "each")
    if request.param == "postgresql":
        server: postgres.PostgreSQL = request.getfixturevalue("postgresql")
        where = server.url(tmp_path / "blobs")
    with Database(location.resolve(where)) as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create(START)


@pytest.fixture
def enrolment(each_database: Database, authority: Authority, clock: Clock) -> Enrolment:
    return Enrolment(each_database, authority, settings={"broker": "mqtts://b:8883"}, clock=clock)


def _join(enrolment: Enrolment, token: str, folder: Path) -> Identity:
    csr = identity.request(folder).decode()
    return identity.accept(folder, enrolment.enrol(EnrolRequest(token=token, csr=csr)))


def test_a_device_joins_with_its_own_key(enrolment: Enrolment, tmp_path: Path) -> None:
    made = _join(enrolment, enrolment.claim("hall", "camera"), tmp_path / "device")
    assert (made.site, made.device) == ("hall", "camera")
    assert made.settings == {"broker": "mqtts://b:8883"}
    assert made.certificate.subject.rfc4514_string() == "CN=camera"
    assert made.expires_at == START + 30 * DAY_S
    assert abs(made.renew_at - (START + 20 * DAY_S)) < DAY_S
    assert (tmp_path / "device" / "identity.pem").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "device" / "pending.key").exists()
    assert Identity(tmp_path / "device").certificate == made.certificate


def test_a_token_lets_one_device_in(enrolment: Enrolment, tmp_path: Path) -> None:
    token = enrolment.claim("hall", "camera")
    assert [one.device for one in enrolment.claims()] == ["camera"]
    _join(enrolment, token, tmp_path / "device")
    assert enrolment.claims() == []
    with pytest.raises(EnrolmentError, match="used by another"):
        _join(enrolment, token, tmp_path / "thief")


def test_of_many_thieves_at_once_one_gets_in(enrolment: Enrolment, tmp_path: Path) -> None:
    token, outcomes = enrolment.claim("hall", "camera"), []

    def attempt() -> None:
        csr = request_for(ec.generate_private_key(ec.SECP256R1())).decode()
        try:
            enrolment.enrol(EnrolRequest(token=token, csr=csr))
            outcomes.append("in")
        except EnrolmentError:
            outcomes.append("out")

    threads = [threading.Thread(target=attempt) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["in", *["out"] * 5]


def test_a_lost_answer_may_be_asked_for_again(enrolment: Enrolment, tmp_path: Path) -> None:
    token, folder = enrolment.claim("hall", "camera"), tmp_path / "device"
    request = EnrolRequest(token=token, csr=identity.request(folder).decode())
    lost = enrolment.enrol(request)
    again = EnrolRequest(token=token, csr=identity.request(folder).decode())
    assert enrolment.enrol(again).certificate == lost.certificate
    assert len(enrolment.certificates()) == 1


def test_tokens_expire(enrolment: Enrolment, clock: Clock, tmp_path: Path) -> None:
    token = enrolment.claim("hall", "camera", lifetime_s=60)
    clock.now += 60
    with pytest.raises(EnrolmentError, match="expired"):
        _join(enrolment, token, tmp_path / "device")


def test_tokens_are_taken_back(enrolment: Enrolment, tmp_path: Path) -> None:
    token = enrolment.claim("hall", "camera")
    enrolment.cancel(enrolment.claims()[0].id)
    with pytest.raises(EnrolmentError, match="not known"):
        _join(enrolment, token, tmp_path / "device")
    with pytest.raises(NotFoundError):
        enrolment.cancel("0" * 16)


def test_another_secret_is_refused_like_another_claim(enrolment: Enrolment, tmp_path: Path) -> None:
    import msgspec

    claim = claims.parse(enrolment.claim("hall", "camera"))
    forged = msgspec.structs.replace(claim, secret=b"x" * 24)
    with pytest.raises(EnrolmentError, match="not known"):
        _join(enrolment, forged.text, tmp_path / "device")


def test_the_secret_is_in_no_table_and_no_text(
    enrolment: Enrolment, each_database: Database
) -> None:
    token = enrolment.claim("hall", "camera")
    claim = claims.parse(token)
    with each_database.read() as connection:
        row = connection.execute("SELECT * FROM fleet_claims")[0]
    for text in (repr(row), repr(claim), repr(EnrolRequest(token=token, csr=""))):
        assert token not in text
        assert claim.secret.hex() not in text
        assert repr(claim.secret) not in text


def test_names_are_one_level_and_unique(enrolment: Enrolment, tmp_path: Path) -> None:
    for name in ("+", "a/b", "#", "FIELDPOST-CONTROLLER-1", "", "a" * 64):
        with pytest.raises(InvalidNameError):
            enrolment.claim("hall", name)
    _join(enrolment, enrolment.claim("hall", "camera"), tmp_path / "device")
    with pytest.raises(AlreadyExistsError, match="hall"):
        enrolment.claim("yard", "camera")
    assert enrolment.claim("hall", "camera")


def test_a_claim_that_nobody_used_holds_its_name_until_it_expires(
    enrolment: Enrolment, clock: Clock
) -> None:
    enrolment.claim("hall", "camera", lifetime_s=60)
    with pytest.raises(AlreadyExistsError):
        enrolment.claim("yard", "camera")
    clock.now += 61
    enrolment.claim("yard", "camera")


def test_a_certificate_is_renewed_for_a_new_key(
    enrolment: Enrolment, clock: Clock, tmp_path: Path
) -> None:
    first = _join(enrolment, enrolment.claim("hall", "camera"), tmp_path / "device")
    clock.now += 20 * DAY_S
    second = first.renewed(enrolment.renew(first.renewal()))
    assert second.certificate.public_key() != first.certificate.public_key()
    assert second.expires_at == clock.now + 30 * DAY_S
    assert enrolment.renew(second.renewal()).device == "camera"


def test_a_lost_renewal_is_asked_for_again_over_restarts(
    enrolment: Enrolment, tmp_path: Path
) -> None:
    first = _join(enrolment, enrolment.claim("hall", "camera"), tmp_path / "device")
    lost = enrolment.renew(first.renewal())
    again = Identity(tmp_path / "device")
    assert enrolment.renew(again.renewal()).certificate == lost.certificate


def test_a_clone_is_found_when_both_renew(enrolment: Enrolment, tmp_path: Path) -> None:
    import shutil

    first = _join(enrolment, enrolment.claim("hall", "camera"), tmp_path / "device")
    shutil.copytree(tmp_path / "device", tmp_path / "clone")
    first.renewed(enrolment.renew(first.renewal()))
    with pytest.raises(EnrolmentError, match="two machines"):
        enrolment.renew(Identity(tmp_path / "clone").renewal())


def test_a_device_that_was_away_renews_with_its_expired_certificate(
    enrolment: Enrolment, clock: Clock, tmp_path: Path
) -> None:
    first = _join(enrolment, enrolment.claim("hall", "camera"), tmp_path / "device")
    clock.now += 200 * DAY_S
    assert first.renewed(enrolment.renew(first.renewal())).expires_at > clock.now
    clock.now += 500 * DAY_S
    with pytest.raises(EnrolmentError, match="long ago"):
        enrolment.renew(Identity(tmp_path / "device").renewal())


def test_only_the_holder_of_the_key_renews(enrolment: Enrolment, tmp_path: Path) -> None:
    import msgspec

    first = _join(enrolment, enrolment.claim("hall", "camera"), tmp_path / "device")
    other = _join(enrolment, enrolment.claim("hall", "door"), tmp_path / "other")
    stolen = msgspec.structs.replace(other.renewal(), certificate=first.renewal().certificate)
    with pytest.raises(EnrolmentError, match="not the sender's"):
        enrolment.renew(stolen)
    with pytest.raises(EnrolmentError, match="not the sender's"):
        enrolment.renew(msgspec.structs.replace(first.renewal(), proof=""))
    with pytest.raises(MalformedPayloadError):
        enrolment.renew(msgspec.structs.replace(first.renewal(), certificate="x"))


def test_another_fleets_certificate_is_not_renewed(
    enrolment: Enrolment, database: Database, tmp_path: Path, clock: Clock
) -> None:
    others = Enrolment(database, Authority.create(START), clock=clock)
    stranger = _join(others, others.claim("hall", "camera"), tmp_path / "stranger")
    with pytest.raises(EnrolmentError, match="not of this fleet"):
        enrolment.renew(stranger.renewal())


def test_a_revoked_device_is_out(enrolment: Enrolment, tmp_path: Path, clock: Clock) -> None:
    from cryptography import x509

    first = _join(enrolment, enrolment.claim("hall", "camera"), tmp_path / "device")
    enrolment.claim("hall", "camera")
    assert [one.device for one in enrolment.revoke("camera", "stolen")] == ["camera"]
    assert enrolment.is_revoked(first.certificate.serial_number)
    assert enrolment.claims() == []
    with pytest.raises(EnrolmentError, match="revoked"):
        enrolment.renew(first.renewal())
    listed = x509.load_pem_x509_crl(enrolment.revocation_list())
    assert [one.serial_number for one in listed] == [first.certificate.serial_number]
    with pytest.raises(NotFoundError):
        enrolment.revoke("camera")
    clock.now += 40 * DAY_S
    assert enrolment.revoked() == []


def test_the_token_names_the_first_root(
    enrolment: Enrolment, each_database: Database, tmp_path: Path, clock: Clock
) -> None:
    from hashlib import sha256

    fleet = Fleet(tmp_path / "metadata", clock=clock)
    signed = Enrolment(each_database, enrolment.authority, fleet.repository, clock=clock)
    token = signed.claim("hall", "camera")
    assert claims.parse(token).root == sha256(fleet.repository.root(1)).digest()
    made = _join(signed, token, tmp_path / "device")
    assert made.root == fleet.repository.root(1)


@pytest.mark.parametrize("cut", [0, 5, 30, -1])
def test_what_is_no_token_is_refused(enrolment: Enrolment, cut: int) -> None:
    token = enrolment.claim("hall", "camera")
    with pytest.raises(EnrolmentError, match="no enrolment token"):
        claims.parse(token[:cut])
    with pytest.raises(EnrolmentError, match="no enrolment token"):
        claims.parse(token[:cut] + "é" + token[cut:])


def test_weak_and_broken_requests_are_refused(enrolment: Enrolment) -> None:
    token = enrolment.claim("hall", "camera")
    weak = rsa.generate_private_key(65537, 1024)
    with pytest.raises(EnrolmentError, match="too weak"):
        enrolment.enrol(EnrolRequest(token=token, csr=request_for(weak).decode()))  # type: ignore[arg-type]
    good = request_for(ec.generate_private_key(ec.SECP256R1())).decode()
    other = request_for(ec.generate_private_key(ec.SECP256R1())).decode()
    mixed = "\n".join([*good.splitlines()[:4], *other.splitlines()[4:]])
    for csr in ("", "x", good[:200], mixed, "x" * 16384):
        with pytest.raises(MalformedPayloadError):
            enrolment.enrol(EnrolRequest(token=token, csr=csr))
    assert len(enrolment.claims()) == 1


def test_an_answer_for_another_key_is_not_taken(enrolment: Enrolment, tmp_path: Path) -> None:
    folder = tmp_path / "device"
    first = _join(enrolment, enrolment.claim("hall", "camera"), folder)
    stranger = request_for(ec.generate_private_key(ec.SECP256R1())).decode()
    answer = enrolment.enrol(EnrolRequest(token=enrolment.claim("hall", "camera"), csr=stranger))
    with pytest.raises(EnrolmentError, match="another key"):
        first.renewed(answer)
    assert Identity(folder).certificate == first.certificate


def test_damaged_identities_say_what_to_do(enrolment: Enrolment, tmp_path: Path) -> None:
    folder = tmp_path / "device"
    with pytest.raises(NotFoundError, match="no identity"):
        Identity(folder)
    _join(enrolment, enrolment.claim("hall", "camera"), folder)
    whole = (folder / "identity.pem").read_bytes()
    for content in (b"", whole[:100], whole.replace(b"CERTIFICATE", b"RUBBISH")):
        (folder / "identity.pem").write_bytes(content)
        with pytest.raises(EnrolmentError, match="cannot be read"):
            Identity(folder)


def test_peers_are_known_by_their_certificates() -> None:
    names = (("DNS", "urn:fieldpost:device:a:b"), ("URI", "urn:fieldpost:device:hall:camera"))
    assert of_peer({"subjectAltName": names}) == ("hall", "camera")
    assert of_peer({}) is None
    assert of_peer(None) is None
    for text in ("urn:fieldpost:device:hall", "urn:fieldpost:device:a:b:c", "hall:camera", "+:+"):
        assert parse_device(text) is None


def test_answers_fit_into_messages(enrolment: Enrolment, tmp_path: Path) -> None:
    csr = identity.request(tmp_path / "device").decode()
    answer = enrolment.enrol(EnrolRequest(token=enrolment.claim("hall", "camera"), csr=csr))
    assert messages.decode(messages.encode(answer), EnrolAnswer) == answer

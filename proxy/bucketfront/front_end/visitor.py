"""A connection on its way between a front end and the owner, and what its ends know of it."""

from dataclasses import dataclass
from typing import Any

from bucketfront.front_end.facts import Facts
from bucketfront.http.grammar import Headers
from bucketfront.server.access.client_certificate import ClientCertificate


@dataclass(frozen=True, slots=True)
class Visitor:
    """A connection that is handed over or given back.

    `client` is the address of its client, as a PROXY header or the socket has it. `in_vain` counts how often in a row
    the owner gave it back, and the front end served no request of it. `relay` is the number of its relay under TLS,
    else None. Then `fields` belong to each response, and `certificate` is the client's.
    """

    client: str
    in_vain: int = 0
    relay: int | None = None
    fields: Headers = ()
    certificate: ClientCertificate | None = None

    def facts(self) -> Facts:
        certificate = self.certificate
        return {
            "client": self.client,
            "in_vain": self.in_vain,
            "relay": self.relay,
            "fields": self.fields,
            "certificate": None if certificate is None else _facts_of(certificate),
        }

    @classmethod
    def of(cls, facts: Facts) -> "Visitor":
        certificate = facts["certificate"]
        return cls(
            facts["client"],
            facts["in_vain"],
            facts["relay"],
            tuple((name, value) for name, value in facts["fields"]),
            None if certificate is None else _certificate_of(certificate),
        )


def _facts_of(certificate: ClientCertificate) -> Facts:
    return {name: getattr(certificate, name) for name in ClientCertificate.__slots__}


def _certificate_of(facts: dict[str, Any]) -> ClientCertificate:
    return ClientCertificate(**{**facts, "dns_names": tuple(facts["dns_names"]), "uris": tuple(facts["uris"])})

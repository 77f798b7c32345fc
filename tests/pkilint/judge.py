"""Has pkilint judge certificates, revocation lists and OCSP answers, and compares its findings with docs/profiles.md.

judge.py FOLDER DOCUMENT: FOLDER has files of DER, *.cer, *.crl and *.ocsp. Of files with one shape (extensions,
algorithms, attributes and kinds of names) one is judged. Every finding of severity NOTICE or more must have a row in the
table below "Findings of pkilint" of DOCUMENT. Ends with 1 if one has none, or if a row was never found.
"""

import collections
import pathlib
import re
import sys

from cryptography import x509
from cryptography.x509 import ocsp as ocsp_reader
from pkilint import loader, pkix
from pkilint.pkix import certificate, crl, extension, name, ocsp
from pkilint.validation import ValidationFindingSeverity


def certificate_validator():
    return certificate.create_pkix_certificate_validator_container(
        certificate.create_decoding_validators(name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS),
        [
            certificate.create_issuer_validator_container([]),
            certificate.create_validity_validator_container(),
            certificate.create_subject_validator_container([]),
            certificate.create_extensions_validator_container([]),
            certificate.create_spki_validator_container([]),
        ],
    )


def crl_validator():
    return crl.create_pkix_crl_validator_container(
        [
            pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS),
            pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS),
        ],
        [
            crl.create_issuer_validator_container([]),
            crl.create_validity_validator_container([]),
            crl.create_extensions_validator_container([]),
        ],
    )


def ocsp_validator():
    return ocsp.create_pkix_ocsp_response_validator_container(
        [
            ocsp.create_response_decoder(),
            pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS),
            pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS),
        ],
        [],
    )


def shape_of_answer(read):
    return (
        read.certificate_status.name,
        str(read.revocation_reason),
        read.hash_algorithm.name,
        read.signature_algorithm_oid.dotted_string,
        tuple(it.oid.dotted_string for it in read.extensions),
    )


def names(of):
    return tuple(attribute.oid.dotted_string for attribute in of)


def shape(read):
    """What makes two files alike for a linter."""
    if isinstance(read, ocsp_reader.OCSPResponse):
        return shape_of_answer(read)
    alike = [
        names(read.issuer),
        read.signature_algorithm_oid.dotted_string,
        tuple((it.oid.dotted_string, it.critical) for it in read.extensions),
    ]
    if isinstance(read, x509.Certificate):
        kinds = ()
        for it in read.extensions:
            if isinstance(it.value, x509.SubjectAlternativeName):
                kinds = tuple(sorted({type(one).__name__ for one in it.value}))
            if isinstance(it.value, (x509.ExtendedKeyUsage, x509.BasicConstraints)):
                alike.append(str(it.value))
        far = read.not_valid_after_utc.year > 2049
        alike += [names(read.subject), type(read.public_key()).__name__, kinds, far]
    else:
        alike.append(len(read) > 0)
    return tuple(alike)


def explained(document):
    """The codes in the first column of the table."""
    text = document.read_text().split("## Findings of pkilint", 1)[1].split("\n## ", 1)[0]
    return set(re.findall(r"^\| `([^`]+)`", text, re.MULTILINE))


def main(folder, document):
    judges = {
        ".cer": (x509.load_der_x509_certificate, loader.load_certificate, certificate_validator()),
        ".crl": (x509.load_der_x509_crl, loader.load_crl, crl_validator()),
        ".ocsp": (ocsp_reader.load_der_ocsp_response, loader.load_ocsp_response, ocsp_validator()),
    }
    files = sorted(pathlib.Path(folder).iterdir())
    shapes = {}
    for file in files:
        read, load, validator = judges[file.suffix]
        try:
            alike = shape(read(file.read_bytes()))
        except ValueError:
            alike = file.name  # a name from elsewhere that this library does not read
        shapes.setdefault((file.suffix, alike), (file, load, validator))
    found = collections.defaultdict(list)
    for file, load, validator in shapes.values():
        document_read = load(file.read_bytes(), file.name)
        for result in validator.validate(document_read.root):
            for finding in result.finding_descriptions:
                if finding.finding.severity <= ValidationFindingSeverity.NOTICE:
                    where = f"{file.name} {result.node.path}"
                    found[finding.finding.code].append(f"{where}: {finding.finding.severity.name} {finding.message or ''}")
    print(f"pkilint: {len(files)} files, {len(shapes)} shapes, {len(found)} kinds of findings")
    known = explained(pathlib.Path(document))
    wrong = 0
    for code, places in sorted(found.items()):
        if code not in known:
            wrong += 1
            some = "; ".join(places[:3])
            print(f"not explained in {document}: {code}, {len(places)} times, such as {some}")
    for code in sorted(known - set(found)):
        wrong += 1
        print(f"never found, remove it from {document}: {code}")
    kinds = {it.suffix for it in files}
    return 1 if wrong or kinds != set(judges) else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""Explain why the SDK does not start. It reads variables and files of AWS, which the settings do not show."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ConfigParseError,
    CredentialRetrievalError,
    EndpointResolutionError,
    InvalidRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)

from bucketfront.config.origin_settings import OriginSettings, ProfileCredentials
from bucketfront.errors import OriginError

# The order in which the SDK reads them.
_ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
# Words of the SDK's rules for endpoints, and the option that each one is about.
_OPTIONS = (
    ("accelerate", "use_accelerate_endpoint of the profile"),
    ("fips", "AWS_USE_FIPS_ENDPOINT, or use_fips_endpoint of the profile,"),
    ("dual", "AWS_USE_DUALSTACK_ENDPOINT, or use_dualstack_endpoint of the profile,"),
)
_FILES = "the files AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE"


@contextmanager
def explained(settings: OriginSettings) -> Iterator[None]:
    """Create and inspect a client in the block. Raises OriginError with the variable or the file, and the cure.

    No message has a value, because an endpoint may hold a password (docs/invariants.md#secrets-stay-in).
    """
    try:
        yield
    except ProfileNotFound as error:
        named = isinstance(settings.credentials, ProfileCredentials)
        source = "origin.credentials" if named else "AWS_PROFILE, or set origin.credentials"
        raise OriginError(f"there is no such profile in {_FILES}: see {source}") from error
    except (PartialCredentialsError, CredentialRetrievalError) as error:
        raise OriginError(f"no usable credentials ({type(error).__name__}): see origin.credentials") from error
    except ConfigParseError as error:
        raise OriginError(f"the AWS file {error.kwargs['path']} cannot be parsed: correct it") from error
    except (EndpointResolutionError, ValueError) as error:
        raise OriginError(_wrong_endpoint(settings, error)) from error
    except BotoCoreError as error:
        raise OriginError(
            f"the AWS SDK refuses its configuration ({type(error).__name__}): check the variables that begin with AWS_,"
            f" and {_FILES}"
        ) from error


def _wrong_endpoint(settings: OriginSettings, error: Exception) -> str:
    rule = str(error)
    # The SDK quotes an endpoint in backticks, and its name may have any of the words.
    option = None if "`" in rule else next((text for word, text in _OPTIONS if word in rule.lower()), None)
    if isinstance(error, EndpointResolutionError) and option is not None:
        return f"{option} does not go together with the endpoint, the region or another option of the SDK: remove it"
    if settings.endpoint_url is not None or isinstance(error, InvalidRegionError):
        return "origin.region is no name of a region, such as us-east-1: correct it"
    found = next((name for name in _ENDPOINT_VARIABLES if os.environ.get(name)), None)
    where = found or "origin.region, or the endpoint_url of the profile,"
    region = "" if found else ", and a region is a name, such as us-east-1"
    return f"{where} is of no use: an endpoint is a URL with scheme and host, such as http://host:9000{region}"

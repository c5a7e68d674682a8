"""What can go wrong between us and a Kubeflow Pipelines server, in words that say what to do."""

import contextlib
import io
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import kfp_server_api
import urllib3

from components.runtime.errors import UserError

_RUNNING = "is it running, and is `kubectl port-forward` or the ingress in place? See --host"
_SAID = 300


class UnavailableError(UserError):
    """The server gives no answer, or an error of its own: another try may succeed."""


class ExistsError(UserError):
    """What should be made is there."""


@dataclass(frozen=True)
class Answers:
    """A server's answers."""

    host: str
    """URL of the server."""
    namespace: str
    """Namespace that is asked about; empty for the server's only one."""
    timeout: int
    """Seconds that an answer may take."""
    token_file: Path | None
    """Where the token lies; what the server says is shown without it."""

    @contextlib.contextmanager
    def asking(self, what: str) -> Iterator[None]:
        """Ask for something. UserError for what goes wrong, UnavailableError where another try may do."""
        try:
            # kfp prints links and warns of its own age
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                yield
        except kfp_server_api.ApiException as error:
            raise self._refusal(what, error) from error
        except urllib3.exceptions.HTTPError as error:
            reason = getattr(error, "reason", None) or error
            # urllib3 takes a refused connection for a kind of timeout
            refused = isinstance(reason, urllib3.exceptions.NewConnectionError)
            if isinstance(reason, urllib3.exceptions.TimeoutError) and not refused:
                raise UnavailableError(
                    f"{self.host} gave no answer within {self.timeout} s; {_RUNNING}"
                ) from error
            if isinstance(reason, urllib3.exceptions.SSLError):
                raise UserError(f"{self.host}: {reason}. Give its certificates with --ca-file") from error
            raise UnavailableError(f"no server answers at {self.host} ({reason}); {_RUNNING}") from error
        except OSError as error:
            raise UserError(f"cannot {what}: {error}") from error
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise UserError(
                f"what answers at {self.host} is not the Kubeflow Pipelines API v2beta1, or its login page: "
                f"cannot {what}. Give the URL of the API (service ml-pipeline), and a --token-file if it "
                f"asks for a login ({type(error).__name__})"
            ) from error

    def _refusal(self, what: str, error: kfp_server_api.ApiException) -> UserError:
        said = self._said(error)
        where = f" in the namespace {self.namespace}" if self.namespace else ""
        if error.status == 401:
            who = f"the token in {self.token_file}" if self.token_file else "no token"
            return UserError(
                f"{self.host} does not know who asks (401, {who}); give a valid --token-file{said}"
            )
        if error.status == 403:
            return UserError(
                f"not allowed to {what}{where} (403); ask for the role kubeflow-edit there, or give the "
                f"--token-file of an account that has it{said}"
            )
        if error.status == 404:
            return UserError(
                f"cannot {what}: {self.host} does not have it (404); is this the address of the "
                f"Kubeflow Pipelines API, and the ID right?{said}"
            )
        if error.status == 409:
            return ExistsError(f"cannot {what}: it exists already (409){said}")
        if error.status == 429 or (error.status or 0) >= 500:
            return UnavailableError(
                f"cannot {what}: the server failed ({error.status}); try again, and see the log of the "
                f"deployment ml-pipeline{said}"
            )
        return UserError(f"cannot {what}: the server refuses ({error.status or error.reason}){said}")

    def _said(self, error: kfp_server_api.ApiException) -> str:
        """The server's own words, short and without the token."""
        text = str(error.body or "")
        with contextlib.suppress(ValueError, AttributeError):
            answer = json.loads(text)
            text = str(answer.get("message") or answer.get("error") or "")
        if "<html" in text.lower():
            return ""
        if self.token_file is not None:
            text = text.replace(self.token_file.read_text().strip() or "\0", "***")
        text = " ".join(text.split())
        return f". It says: {text[:_SAID]}" if text else ""

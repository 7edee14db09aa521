"""The evidence that stories about bundles begin with."""

from tests.audit.conftest import evidence, methods

__all__ = ["evidence", "methods"]

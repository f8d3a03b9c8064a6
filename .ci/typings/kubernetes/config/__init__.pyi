from typing import TypedDict

from kubernetes.client import Configuration
from kubernetes.config import incluster_config as incluster_config

class ConfigException(Exception): ...

class _Context(TypedDict, total=False):
    namespace: str

class _NamedContext(TypedDict):
    name: str
    context: _Context

def load_incluster_config(*, client_configuration: Configuration) -> None: ...
def load_kube_config(*, client_configuration: Configuration, persist_config: bool) -> None: ...
def list_kube_config_contexts() -> tuple[list[_NamedContext], _NamedContext]: ...

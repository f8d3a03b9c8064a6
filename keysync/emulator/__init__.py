"""An Azure of one's own: Entra, Batch management and Key Vault on loopback, for tests and for trying things out.

It shares no code with the clients it stands in for, so that a misreading of Azure cannot hide in both.
"""

from keysync.emulator.data import AccountData, EmulatorData, PolicyData, SecretData, VaultData, load_data
from keysync.emulator.faults import Fault
from keysync.emulator.hooks import OnRequest, Stage
from keysync.emulator.server import Emulator, Endpoints

__all__ = [
    "AccountData",
    "Emulator",
    "EmulatorData",
    "Endpoints",
    "Fault",
    "OnRequest",
    "PolicyData",
    "SecretData",
    "Stage",
    "VaultData",
    "load_data",
]

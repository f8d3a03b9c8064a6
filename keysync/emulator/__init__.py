"""The embedded Azure: Entra, Resource Manager, Batch, Key Vault and queues on loopback HTTPS, for tests and for trying keysync.

It shares no code with the clients that it tests, so that no misreading of Azure can be in both.
"""

from keysync.emulator.data import AccountData, EmulatorData, PolicyData, SecretData, VaultData, load_data
from keysync.emulator.endpoints import Endpoints
from keysync.emulator.faults import Fault
from keysync.emulator.hooks import OnRequest, Stage
from keysync.emulator.queue_data import DeliveryFaults, QueueData
from keysync.emulator.server import Emulator

__all__ = [
    "AccountData",
    "DeliveryFaults",
    "Emulator",
    "EmulatorData",
    "Endpoints",
    "Fault",
    "OnRequest",
    "PolicyData",
    "QueueData",
    "SecretData",
    "Stage",
    "VaultData",
    "load_data",
]

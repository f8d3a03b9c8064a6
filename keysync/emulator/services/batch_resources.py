"""What the Batch service lists: images, and the jobs and pools of an account."""

from __future__ import annotations

from keysync.emulator.state import Account
from keysync.emulator.times import timestamp
from keysync.emulator.wire import Json


def _image(publisher: str, offer: str, sku: str, agent: str, ends: str) -> Json:
    return {
        "nodeAgentSKUId": agent,
        "imageReference": {"publisher": publisher, "offer": offer, "sku": sku, "version": "latest"},
        "osType": "windows" if "windows" in agent else "linux",
        "capabilities": ["DockerCompatible"] if publisher.startswith("microsoft") else [],
        "batchSupportEndOfLife": f"{ends}T00:00:00Z",
        "verificationType": "verified",
    }


SUPPORTED_IMAGES = [
    _image("canonical", "0001-com-ubuntu-server-jammy", "22_04-lts", "batch.node.ubuntu 22.04", "2027-07-01"),
    _image("canonical", "ubuntu-24_04-lts", "server", "batch.node.ubuntu 24.04", "2029-07-01"),
    _image("almalinux", "almalinux-x86_64", "8-gen2", "batch.node.el 8", "2029-07-01"),
    _image("microsoft-dsvm", "ubuntu-hpc", "2204", "batch.node.ubuntu 22.04", "2027-07-01"),
    _image("microsoftwindowsserver", "windowsserver", "2022-datacenter", "batch.node.windows amd64", "2031-10-14"),
]
"""Some of the images of `Account_ListSupportedImages`."""


def job_body(base: str, account: Account, name: str) -> Json:
    """An active job. `base` is the URL of the account's endpoint."""
    pool = account.pools[0] if account.pools else "pool"
    return {
        **_common(base, account, "jobs", name),
        "priority": 0,
        "maxParallelTasks": -1,
        "allowTaskPreemption": False,
        "usesTaskDependencies": False,
        "constraints": {"maxWallClockTime": "P10675199DT2H48M5.4775807S", "maxTaskRetryCount": 0},
        "poolInfo": {"poolId": pool},
        "executionInfo": {"startTime": timestamp(account.created), "poolId": pool},
        "onAllTasksComplete": "noaction",
        "onTaskFailure": "noaction",
    }


def pool_body(base: str, account: Account, name: str) -> Json:
    """A pool without nodes. `base` is the URL of the account's endpoint."""
    image = SUPPORTED_IMAGES[0]
    return {
        **_common(base, account, "pools", name),
        "allocationState": "steady",
        "allocationStateTransitionTime": timestamp(account.created),
        "vmSize": "standard_d2s_v3",
        "virtualMachineConfiguration": {
            "imageReference": image["imageReference"],
            "nodeAgentSKUId": image["nodeAgentSKUId"],
        },
        "resizeTimeout": "PT15M",
        "currentDedicatedNodes": 0,
        "currentLowPriorityNodes": 0,
        "targetDedicatedNodes": 0,
        "targetLowPriorityNodes": 0,
        "enableAutoScale": False,
        "enableInterNodeCommunication": False,
        "taskSlotsPerNode": 1,
        "taskSchedulingPolicy": {"nodeFillType": "spread"},
    }


def node_counts_body(pool: str) -> Json:
    """The nodes of a pool, by state: none."""
    states = (
        "creating", "idle", "offline", "preempted", "rebooting", "reimaging", "running", "starting", "startTaskFailed",
        "leavingPool", "unknown", "unusable", "waitingForStartTask", "deallocated", "deallocating", "total",
        "upgradingOS",
    )  # fmt: skip
    none: Json = dict.fromkeys(states, 0)
    return {"poolId": pool, "dedicated": none, "lowPriority": dict(none)}


def _common(base: str, account: Account, kind: str, name: str) -> Json:
    created = timestamp(account.created)
    return {
        "id": name,
        "url": f"{base}/{kind}/{name}",
        "eTag": f"0x{int(account.created * 1000):X}",
        "lastModified": created,
        "creationTime": created,
        "state": "active",
        "stateTransitionTime": created,
    }

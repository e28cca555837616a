"""Kernels that have TensorFlow imported when they start: for a test that drives one, and for a Jupyter server's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from jupyter_client.manager import KernelManager
from jupyter_client.provisioning import LocalProvisioner

from tests.forked import forks

_WANTED = "TF_CPU_ALLOCATOR_USE_BFC"
"""Who sets this imports TensorFlow. On a GPU made of RAM kernels are also about what is set before the import."""


class ForkedProvisioner(LocalProvisioner):  # type: ignore[misc]
    """Forks a kernel instead of starting it."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Fork it, under the environment and in the folder that it was to have."""
        self.cwd = str(kwargs["cwd"] or os.getcwd())
        self.process = forks.start(cmd[cmd.index("-m") :], kwargs["env"], self.cwd)
        self.pid = self.pgid = self.process.pid
        return self.connection_info


def wants_fork(environment: Mapping[str, str]) -> bool:
    """Tell whether a kernel under ``environment`` imports TensorFlow, and may find it imported."""
    return _WANTED in environment and forks.suits(environment)


def fork(manager: KernelManager) -> None:
    """Let ``manager`` fork its kernel when it starts it."""
    manager.provisioner = ForkedProvisioner(
        kernel_id=manager.kernel_id, kernel_spec=manager.kernel_spec, parent=manager
    )


def options_for_server(environment: dict[str, str]) -> list[str]:
    """Give the options with which a Jupyter server under ``environment`` forks its kernels; adds where from to it."""
    if not wants_fork(environment):
        return []
    environment[forks.ADDRESS] = forks.address()
    return [f"--MultiKernelManager.kernel_manager_class={__name__}.ServerKernelManager"]


def __getattr__(name: str) -> Any:
    """Make the class for a Jupyter server's kernels where there is such a server: the oldest packages have none."""
    if name != "ServerKernelManager":
        raise AttributeError(name)
    from jupyter_server.services.kernels.kernelmanager import ServerKernelManager

    class ForkingKernelManager(ServerKernelManager):  # type: ignore[misc]
        async def _async_pre_start_kernel(self, **options: Any) -> Any:
            if self.provisioner is None:
                self.kernel_id = self.kernel_id or options["kernel_id"]
                fork(self)
            return await super()._async_pre_start_kernel(**options)

    return ForkingKernelManager

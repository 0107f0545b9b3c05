"""What ``--admin`` adds to a runner: it counts, and one process serves the counts of all."""

from typing import TYPE_CHECKING

from ..insight.app import admin_app
from ..insight.insight import Insight, Report
from .admin import AdminAddress, AdminServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .runner import Runner

__all__ = ["Reporting"]


class Reporting:
    """Counts and the server of the admin application, for one runner process.

    Args:
        runner: The runner.
        address: Where the admin application listens.

    Attributes:
        insight: Counts, and reports.
        admin: The server of the admin application.
        peers: Asks all processes of the runner for their reports; None: there is only this one.
    """

    def __init__(self, runner: "Runner", address: AdminAddress) -> None:
        self.insight = Insight(
            runner.store, lambda: len(runner.calls), lambda: len(runner.host.parked), runner.obstacle
        )
        self.admin = AdminServer(admin_app(self.insight, self._reports, any_host=address.public), address)
        self.peers: Callable[[], Awaitable[list[Report]]] | None = None

    async def start(self) -> None:
        """Begin to keep log lines, and to listen."""
        self.insight.lines.start()
        await self.admin.start()

    async def stop(self) -> None:
        """End both."""
        await self.admin.stop()
        self.insight.lines.stop()

    async def _reports(self) -> list[Report]:
        return [self.insight.report()] if self.peers is None else await self.peers()

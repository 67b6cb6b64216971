"""Does to the mesh what the plan says, and undoes it. Counted is what was seen to have happened."""

import asyncio
import time

from .mesh import Mesh
from .plan import Action, Fault
from .process import Trouble


class Injector:
    def __init__(self, mesh: Mesh, faults: list[Fault]) -> None:
        self._mesh = mesh
        self._faults = faults
        self.injected: list[str] = []
        """The kinds, in order."""

    async def run(self) -> None:
        """Returns when the last fault is undone."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for fault in self._faults:
                group.create_task(self._one(fault, began))

    async def _one(self, fault: Fault, began: float) -> None:
        await asyncio.sleep(max(0, began + fault.at - time.monotonic()))
        if not self._begin(fault):
            raise Trouble(f"this fault did not happen: {fault}")
        self.injected.append(fault.kind)
        await asyncio.sleep(fault.seconds)
        self._end(fault)

    def _begin(self, fault: Fault) -> bool:
        node, network = fault.targets[0], self._mesh.network
        program = self._mesh.programs[node]
        program.check()
        match fault.action:
            case Action.KILL:
                return program.kill()
            case Action.STOP | Action.STOP_LONG | Action.SLEEP:
                return program.stop()
            case Action.PARTITION:
                for sender, receiver in self._ways(fault):
                    network.cut(sender, receiver)
                return all(network.is_cut(*way) for way in self._ways(fault))
            case Action.UNPLUG:
                network.unplug(node)
                return network.is_unplugged(node)
            case Action.CLOCK:
                program.clock.set_wall_clock(fault.jump)
                return program.clock.is_read_by(program.pid)

    def _end(self, fault: Fault) -> None:
        node, network = fault.targets[0], self._mesh.network
        program = self._mesh.programs[node]
        match fault.action:
            case Action.KILL:
                program.start()
            case Action.STOP | Action.STOP_LONG:
                program.go_on()
            case Action.SLEEP:
                program.clock.sleep(fault.jump)
                program.go_on()
            case Action.PARTITION:
                for sender, receiver in self._ways(fault):
                    network.mend(sender, receiver)
            case Action.UNPLUG:
                network.plug(node)
            case Action.CLOCK:
                pass

    @staticmethod
    def _ways(fault: Fault) -> list[tuple[str, str]]:
        one, other = fault.targets
        return [(one, other)] if fault.is_one_way else [(one, other), (other, one)]

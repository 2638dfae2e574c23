"""``yoloquant targets``."""

from __future__ import annotations

from ..parser import Call

PARTS = ()


def run(call: Call) -> int:
    """Print what builds and runs here, and what to install."""
    from ... import targets

    print(f"{'target':<13} {'devices':<28} {'here':<22} install")
    for name in targets.names():
        target = targets.get(name)
        missing = target.missing()
        here = f"missing {', '.join(missing)}" if missing else "builds and runs"
        # what a device's chip computes is simulated on this machine
        if not missing and not target.capabilities.runs_here:
            here = "builds, simulated"
        hint = f'pip install "yoloquant[{target.extra}]"' if missing and target.extra else ""
        print(f"{name:<13} {', '.join(n for d in target.devices for n in d.names):<28} {here:<22} {hint}".rstrip())
        for variant, meaning in target.variants.items():
            print(f"  :{variant:<10} {meaning}")
        if target.capabilities.graph:
            print(f"  in its graph {', '.join(f'{what}=' for what in target.capabilities.graph)}")
    return 0

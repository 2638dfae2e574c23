"""Arm Ethos-U: NPUs beside microcontrollers and small Cortex-A processors, compiled for by Arm's open Vela."""

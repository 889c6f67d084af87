"""The command `edgewise`, one file a command. Engines and routers are imported inside the commands: help is quick."""

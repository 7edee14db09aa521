"""How does a federation come to run on several machines? Folders first, then processes.

Read `join` first: how a party gets its folder and comes to believe the others. `folder` names the
places of Flower's part in it, `processes` the command lines, `supervisor` starts and watches them,
`reach` says why the SuperLink does not answer, `superlink` asks it; `trial` is all of it on one
machine.
"""

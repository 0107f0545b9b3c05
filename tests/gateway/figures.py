"""How many of the recorded cases are equal, for the summary of the test run."""

__all__ = ["cases", "equal", "left_out"]

# by whether the case has ext-plugin-post-resp
cases: dict[bool, int] = {}
equal: dict[bool, int] = {False: 0, True: 0}
left_out: dict[bool, list[tuple[str, str, str]]] = {}

"""What a class leaves to its subclasses without declaring it."""

import inspect


def left_to_subclasses(base):
    """The names of the methods and properties of a class that do nothing but raise `NotImplementedError`."""
    found = {name for name, member in vars(base).items() if _raises(member)}
    assert found, f"{base.__name__} leaves nothing to its subclasses that is seen here"
    return found


def _raises(member):
    function = member.fget if isinstance(member, property) else member
    return inspect.isfunction(function) and "raise NotImplementedError" in inspect.getsource(function)

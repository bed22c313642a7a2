"""Functions looked up by their name, in a dictionary that is filled while the module is imported."""

FITS = {}


def register(name):
    def keep(function):
        FITS[name] = function
        return function

    return keep


@register("bands")
def gauss(value):
    return value + 10


@register("lines")
def lorentz(value):
    return value + 11


SETTINGS = {}


def configure(name, value):
    SETTINGS[name] = value


configure("depth", 12)


@register("depth")
def deep(value):
    return value + SETTINGS["depth"]

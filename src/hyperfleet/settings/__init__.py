"""What the environment says, checked once: `load` makes a frozen `Settings` of it."""

from hyperfleet.settings.load import ENV_FILE, Loaded, is_loopback, load, show
from hyperfleet.settings.setting import Setting
from hyperfleet.settings.table import SETTINGS, Settings

__all__ = ["ENV_FILE", "SETTINGS", "Loaded", "Setting", "Settings", "is_loopback", "load", "show"]

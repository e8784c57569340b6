"""Only says where the fixtures are: pytest reads this file by itself, so no experiment may edit it."""

from fixtures import *  # noqa: F403

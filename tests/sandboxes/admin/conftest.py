from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission

from tests.factories import make_user


@pytest.fixture
def as_user(client):
    """Log in as somebody of the staff with just these permissions, or as root."""

    def log_in(*codenames, root=False):
        user = make_user(f"user{len(codenames)}{root}", is_staff=True, is_superuser=root)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client.force_login(user)
        return client

    return log_in

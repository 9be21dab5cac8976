"""Django's settings. What a deployment may choose is read by config.py from .env."""

from __future__ import annotations

import secrets
from pathlib import Path

from environ import Env

from sandboxplatform import config
from sandboxplatform.setting_table import BASE_DIR

PLATFORM = config.load()
"""Every setting of the README's table, as an attribute under its own name."""

DATA_DIR = Path(PLATFORM.DATA_DIR).absolute()
try:
    DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
    (DATA_DIR / "static").mkdir(exist_ok=True)
except OSError as error:
    raise config.ConfigError(
        f"DATA_DIR is {str(DATA_DIR)!r}, which cannot be written: {error.strerror}. Change its "
        f"permissions, or name another folder."
    ) from None


def _kept_secret_key() -> str:
    """Return the key kept in DATA_DIR, making it once; two processes agree on one."""
    file = DATA_DIR / "secret_key"
    if not file.exists():
        draft = DATA_DIR / f".secret_key.{secrets.token_hex(8)}"
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(50))
        try:
            file.hardlink_to(draft)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return file.read_text().strip()


SECRET_KEY = PLATFORM.SECRET_KEY or _kept_secret_key()
DEBUG = PLATFORM.DEBUG
ALLOWED_HOSTS = config.allowed_hosts(PLATFORM)

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "sandboxplatform.apps.SandboxPlatformConfig",
    "sandboxes.apps.SandboxesConfig",
    "pools.apps.PoolsConfig",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "sandboxplatform.urls"
ASGI_APPLICATION = "sandboxplatform.asgi.application"
APPEND_SLASH = False

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

if PLATFORM.DATABASE_URL:
    _database = Env.db_url_config(PLATFORM.DATABASE_URL)
    DATABASES = {
        "default": {
            **_database,
            "CONN_HEALTH_CHECKS": True,
            "OPTIONS": {
                **_database.get("OPTIONS", {}),
                # A burst of requests shares these, or the server would run out of connections.
                "pool": {"min_size": 1, "max_size": 16, "timeout": 20},
            },
        }
    }
else:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": DATA_DIR / "db.sqlite3",
            "CONN_MAX_AGE": 60,
            # Claims and port leases fail without these: see checks.py.
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            },
            "TEST": {"NAME": DATA_DIR / "test.sqlite3"},
        }
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"


def _cache(name: str, redis_prefix: str) -> dict[str, object]:
    """Return a cache of this process or, with Redis, of all workers."""
    if not PLATFORM.REDIS_ENABLED:
        return {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": name}
    return {
        "BACKEND": "sandboxes.shared_cache.SharedCache",
        "LOCATION": f"redis://{PLATFORM.REDIS_SERVER}:{PLATFORM.REDIS_PORT}/{PLATFORM.REDIS_DB}",
        "KEY_PREFIX": redis_prefix,
        "OPTIONS": {
            "SOCKET_CONNECT_TIMEOUT": 0.5,
            "SOCKET_TIMEOUT": 0.5,
            "CONNECTION_POOL_KWARGS": {
                "username": PLATFORM.REDIS_USER or None,
                "password": PLATFORM.REDIS_PASSWORD or None,
            },
        },
    }


CACHES = {
    "default": _cache("default", PLATFORM.REDIS_CONTAINER_POOL_KEY),
    "ports": _cache("ports", PLATFORM.REDIS_PORT_KEY),
}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = DATA_DIR / "static"
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Largest JSON body of an RPC route; the proxy streams and has no such limit."""

DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_BODY_BYTES

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["sandboxes.wire.authentication.BearerAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "sandboxes.wire.errors.answer",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Sandbox platform",
    "DESCRIPTION": "Lends isolated sandboxes; speaks AgentScope Runtime's remote sandbox protocol.",
    "VERSION": "0.1.0",
    "SERVE_INCLUDE_SCHEMA": True,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "sandboxes.wire.schema.add_streaming_routes",
    ],
}

DEPLOYER_OPTIONS = {
    "docker": {"access_host": PLATFORM.SANDBOX_ACCESS_HOST},
    "local": {"state_dir": DATA_DIR / "local", "guest_dir": BASE_DIR / "sandboxes" / "guest"},
    "fake": {},
}
"""What make_deployer() is given beside the installation's id."""

LOGGING_CONFIG = None

"""Keys of the `storage` that Parvis reads in several places, and the variables that count more."""

from __future__ import annotations

RECIPE_DIRECTORY = "zocalo.recipe_directory"
FALLBACK_LOCATION = "zocalo.go.fallback_location"
LOGBOOK_LOCATION = "zocalo.dispatcher.logbook_location"
STATE_DIRECTORY = "parvis.state_directory"
METRICS_PORT = "parvis.metrics.port"
RECORDS_HOPS = "parvis.records.hops"
RECORDS_DIRECTORY = "parvis.records.directory"
RECORDS_COLLECTOR = "parvis.records.collector"
GRAYLOG_URL = "parvis.graylog.url"
GRAYLOG_TOKEN = "parvis.graylog.token"  # noqa: S105 - the name of the key
GRAYLOG_USERNAME = "parvis.graylog.username"
GRAYLOG_PASSWORD = "parvis.graylog.password"  # noqa: S105 - as above
METRICS_ADDRESS = "parvis.metrics.address"
LIVENESS_PORT = "parvis.liveness.port"
LIVENESS_ADDRESS = "parvis.liveness.address"
LIVENESS_TIMEOUT = "parvis.liveness.timeout"
DETECTOR = "parvis.detector"

STOMP_VARIABLES = {
    "PARVIS_STOMP_HOST": "host",
    "PARVIS_STOMP_PORT": "port",
    "PARVIS_STOMP_USERNAME": "username",
    "PARVIS_STOMP_PASSWORD": "password",
    "PARVIS_STOMP_PREFIX": "prefix",
}
RABBITMQ_VARIABLES = {
    "PARVIS_RABBITMQ_HOST": "host",
    "PARVIS_RABBITMQ_PORT": "port",
    "PARVIS_RABBITMQ_USERNAME": "username",
    "PARVIS_RABBITMQ_PASSWORD": "password",
    "PARVIS_RABBITMQ_VHOST": "vhost",
}
STORAGE_VARIABLES = {
    "PARVIS_RECIPE_DIRECTORY": RECIPE_DIRECTORY,
    "PARVIS_FALLBACK_LOCATION": FALLBACK_LOCATION,
    "PARVIS_LOGBOOK_LOCATION": LOGBOOK_LOCATION,
    "PARVIS_STATE_DIRECTORY": STATE_DIRECTORY,
    "PARVIS_RECORDS_HOPS": RECORDS_HOPS,
    "PARVIS_RECORDS_DIRECTORY": RECORDS_DIRECTORY,
    "PARVIS_RECORDS_COLLECTOR": RECORDS_COLLECTOR,
    "PARVIS_GRAYLOG_URL": GRAYLOG_URL,
    "PARVIS_GRAYLOG_TOKEN": GRAYLOG_TOKEN,
    "PARVIS_METRICS_PORT": METRICS_PORT,
    "PARVIS_METRICS_ADDRESS": METRICS_ADDRESS,
    "PARVIS_LIVENESS_PORT": LIVENESS_PORT,
    "PARVIS_LIVENESS_ADDRESS": LIVENESS_ADDRESS,
    "PARVIS_LIVENESS_TIMEOUT": LIVENESS_TIMEOUT,
    "PARVIS_DETECTOR": DETECTOR,
}
ISPYB_VARIABLE = "PARVIS_ISPYB_URL"
ENVIRONMENT_VARIABLE = "PARVIS_ENVIRONMENT"
VERBOSITY_VARIABLE = "PARVIS_VERBOSITY"
LOG_FORMAT_VARIABLE = "PARVIS_LOG_FORMAT"
TRANSPORT_VARIABLE = "PARVIS_TRANSPORT"

#: Variables that change the configuration.
VARIABLES = (
    *STOMP_VARIABLES,
    *RABBITMQ_VARIABLES,
    *STORAGE_VARIABLES,
    ISPYB_VARIABLE,
    VERBOSITY_VARIABLE,
    LOG_FORMAT_VARIABLE,
    TRANSPORT_VARIABLE,
)

#: What each variable stands for: a key of a plugin, or of ours where no plugin has one.
MEANINGS = {
    **{name: f"stomp.{key}" for name, key in STOMP_VARIABLES.items()},
    **{name: f"pika.{key}" for name, key in RABBITMQ_VARIABLES.items()},
    **STORAGE_VARIABLES,
    ISPYB_VARIABLE: "ispyb.url",
    VERBOSITY_VARIABLE: "verbosity",
    LOG_FORMAT_VARIABLE: "log format",
    TRANSPORT_VARIABLE: "transport.default",
}

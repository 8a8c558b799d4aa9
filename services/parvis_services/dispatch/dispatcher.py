"""Dispatcher: looks a data collection up, fills its recipe in and starts it."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, Field

from parvis.observe.hops import Started, report, reports_hops
from parvis.observe.logs import recipe_context
from parvis.recipe.envelope import RECIPE_HEADER, dump_json
from parvis.recipe.graph import Recipe
from parvis.recipe.library import find_recipe, recipe_directories
from parvis.recipe.policy import PRIORITY, PRIORITY_PARAMETER, PolicyError, priority_of
from parvis.recipe.problem import RecipeError
from parvis.recipe.template import fill_recipe
from parvis.recipe.watch import WATCH_PARAMETER, add_watcher, failure_message, is_watch_topic
from parvis.service.base import Reject, Retry, Service, Step
from parvis.service.contract import Anything, Model
from parvis.service.fan_out import USER
from parvis.transport.base import Send, own_headers
from parvis_services.dispatch import plugins
from parvis_services.dispatch.defaults import site_parameters
from parvis_services.dispatch.logbook import write_entry
from parvis_services.ispyb.errors import DatabaseUnavailable, IspybError, VisitUnreachable
from parvis_services.ispyb.reprocessing import job_recipe

if TYPE_CHECKING:
    from parvis_services.ispyb.database import Database
    from parvis_services.ispyb.directories import Site

_NOT_READY_DELAY = 2.0
_TIMEOUT = 120.0
_LONGEST_NAME = 31  # of a user or a visit
_GUID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_QUEUE = re.compile(r"[A-Za-z0-9_.-]{1,255}")


class DispatchRequest(Model):
    """What `go` sends.

    Attributes:
        recipes: Names of recipes to run, as one.
        custom_recipe: A recipe to run, written out.
        parameters: What to fill in, and what the dispatcher itself reads: `ispyb_dcid`, `ispyb_process`,
            `guid`, `parvis_priority`, `ispyb_wait_for_runstatus`, `dispatcher_timeout`,
            `dispatcher_error_queue`.
    """

    recipes: list[str] = Field(default_factory=list)
    custom_recipe: dict[str, Any] | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)


class Dispatcher(Service[DispatchRequest, Anything]):
    """Looks a data collection up in the metadata database, once, fills the recipe in and starts it."""

    name: ClassVar[str] = "Dispatcher"
    queue: ClassVar[str] = "processing_recipe"
    Payload: ClassVar[type[BaseModel]] = DispatchRequest
    Parameters: ClassVar[type[BaseModel]] = Anything
    plain_messages: ClassVar[bool] = True
    # A request whose confirmation comes late is in a drop file as well.
    remember: ClassVar[float] = 86_400

    _database: Database | None = None
    _site: Site
    _reports_hops: bool = False

    def start(self) -> None:
        """Open the metadata database, if one is configured."""
        from parvis_services.ispyb.configured import configured_database, configured_site

        self._reports_hops = reports_hops(self.config)
        self._database = configured_database(self.config)
        self._site = configured_site(self.config)
        if self._database is None:
            self.log.warning("no metadata database is configured: recipes get no ispyb_ fields")

    def stop(self) -> None:
        """Close the database."""
        if self._database is not None:
            self._database.close()

    def process(self, payload: DispatchRequest, step: Step[Anything]) -> None:
        """Start a recipe, or come back when the data collection is ready."""
        watcher = payload.parameters.get(WATCH_PARAMETER)
        try:
            self._dispatch(payload, step)
        except Reject as error:
            reason = f"{error} ({_description(payload.model_dump(), payload.parameters)})"
            tell = [failure_message(watcher, reason)] if is_watch_topic(watcher) else []
            raise Reject(reason, tell=tell) from error

    def _dispatch(self, payload: DispatchRequest, step: Step[Anything]) -> None:
        message: dict[str, Any] = payload.model_dump(exclude_none=True)
        parameters = dict(payload.parameters)
        parameters["guid"] = _guid(parameters.get("guid"))
        try:
            if not self._is_ready(message, parameters):
                self._come_back(message, parameters, step)
                return
            fields = self._fields(parameters)
        except (DatabaseUnavailable, VisitUnreachable) as error:
            raise Retry(str(error)) from error
        except IspybError as error:
            raise Reject(str(error)) from error
        filtered, parameters = plugins.apply_filters(
            message, site_parameters(self.config.storage) | parameters | fields
        )
        recipe = self._recipe(filtered, parameters)
        content = recipe.to_dict()
        watcher = parameters.get(WATCH_PARAMETER)
        if watcher is not None:
            content = _watched(content, watcher)
        recipe_id = str(parameters["guid"])
        user = _user(step.header, parameters)
        started = Started(
            recipe_id,
            step.identity,
            time.time(),
            user,
            header=own_headers(step.header),
            message=message,
            parameters=filtered | {"parameters": parameters},
            recipe=content,
        )
        if self.config.logbook_location is not None:
            write_entry(self.config.logbook_location, started)
        environment: dict[str, Any] = {"ID": recipe_id, **_priority(parameters)}
        if user:
            environment[USER] = user
        step.start_recipe(content, environment)
        if self._reports_hops:
            step.send_to_queue(report((), [started]))
        with recipe_context(recipe_id):
            self.log.info("started %s", _description(filtered, parameters))

    def _is_ready(self, message: dict[str, Any], parameters: dict[str, Any]) -> bool:
        from parvis_services.ispyb.ready import is_ready

        if self._database is not None and not is_ready(self._database, parameters):
            return False
        return plugins.is_ready(message, parameters)

    def _fields(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        from parvis_services.ispyb.fields import message_fields

        if self._database is None:
            return {}
        return message_fields(self._database, parameters, site=self._site)

    def _come_back(
        self, message: dict[str, Any], parameters: Mapping[str, Any], step: Step[Anything]
    ) -> None:
        """Send the message to the queue it came by once more, or give it up when its time is over."""
        now = time.time()
        expiration = _number(
            parameters, "dispatcher_expiration", now + _number(parameters, "dispatcher_timeout", _TIMEOUT)
        )
        headers = own_headers(step.header)
        in_recipe = headers.pop(RECIPE_HEADER, None) is not None  # what is sent on here is the bare request
        if now < expiration:
            self.log.info("%s is not ready yet", _description(message, parameters))
            kept = {"guid": parameters["guid"], "dispatcher_expiration": expiration}
            again = message | {"parameters": message["parameters"] | kept}
            if in_recipe:
                step.checkpoint(again, delay=_NOT_READY_DELAY)
            else:
                step.send_to_queue(Send(step.queue, dump_json(again), headers, delay=_NOT_READY_DELAY))
            return
        error_queue = parameters.get("dispatcher_error_queue")
        if error_queue is None:
            raise Reject("it was not ready in time")
        if not _QUEUE.fullmatch(str(error_queue)):
            raise Reject(f"dispatcher_error_queue {str(error_queue)[:80]!r} cannot name a queue")
        self.log.warning("%s was not ready in time", _description(message, parameters))
        step.send_to_queue(Send(str(error_queue), dump_json(message), headers))

    def _recipe(self, message: Mapping[str, Any], parameters: Mapping[str, Any]) -> Recipe:
        """Return the recipe to run: all that are asked for as one, filled in and checked."""
        names = message.get("recipes") or []
        custom = message.get("custom_recipe")
        if not names and not custom:  # then it is the processing job that says which
            names = [name for name in (job_recipe(parameters),) if name]
        try:
            recipes = [Recipe.from_dict(custom)] if custom else []
            recipes += [self._load(str(name)) for name in names]
            if not recipes:
                raise Reject("the message names no recipe and holds none")
            recipe = recipes[0]
            for other in recipes[1:]:
                recipe = recipe.merge(other)
            recipe.validate()
            return fill_recipe(recipe, parameters)
        except RecipeError as error:
            raise Reject(f"recipe: {error}") from error

    def _load(self, name: str) -> Recipe:
        try:
            path = find_recipe(name, recipe_directories(self.config))
            return Recipe.from_json(path.read_bytes())
        except LookupError as error:
            raise Reject(str(error)) from error
        except OSError as error:
            raise Retry(f"recipe {name!r} cannot be read: {error.strerror}") from error


def _guid(value: Any) -> str:
    """Return the recipe ID: the given one, if it may be part of a path, or a new one."""
    if value is None:
        return str(uuid.uuid4())
    if not _GUID.fullmatch(str(value)):
        raise Reject(
            f"guid {str(value)[:80]!r} must be letters, digits, '.', '_' and '-', at most 64 of them"
        )
    return str(value)


def _user(header: Mapping[str, str], parameters: Mapping[str, Any]) -> str:
    """Return on whose behalf the recipe runs: who started it, at which visit or else beamline.

    Both count: one account may start the recipes of all beamlines, and one person those of several visits.
    """
    place = parameters.get("ispyb_visit") or parameters.get("ispyb_beamline")
    names = [str(name)[:_LONGEST_NAME] for name in (header.get("zocalo.go.user"), place) if name]
    return "@".join(names)


def _number(parameters: Mapping[str, Any], name: str, default: float) -> float:
    value = parameters.get(name, default)
    try:
        return float(value)
    except (TypeError, ValueError):
        raise Reject(f"{name} must be a number, not {str(value)[:80]!r}") from None


def _priority(parameters: Mapping[str, Any]) -> dict[str, int]:
    """The part of the recipe environment that says how urgent the job is, if anybody said so."""
    try:
        priority = priority_of({PRIORITY: parameters.get(PRIORITY_PARAMETER)})
    except PolicyError as error:
        raise Reject(f"{PRIORITY_PARAMETER}: {error}") from error
    return {} if priority is None else {PRIORITY: priority}


def _watched(recipe: dict[str, Any], topic: Any) -> dict[str, Any]:
    if not is_watch_topic(topic):
        raise Reject(f"{WATCH_PARAMETER} {str(topic)[:80]!r} is not a topic that results may be sent to")
    return add_watcher(recipe, topic)


def _description(message: Mapping[str, Any], parameters: Mapping[str, Any]) -> str:
    names = ", ".join(map(str, message.get("recipes") or [])) or "a custom recipe"
    subject = parameters.get("ispyb_dcid")
    return f"data collection {subject} ({names})" if subject is not None else names

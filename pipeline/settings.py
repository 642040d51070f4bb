"""The job: everything a job file may say, with a sound default for all but the data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator, model_validator

from stages.dataset import DatasetSettings
from stages.descriptor_settings import DescribeSettings, DescriptorSettings, OpenAIDescriptors
from stages.methods import ZERO_SHOT, Method, parse_method
from stages.methods.few_shot import FewShotMethod
from stages.settings import (
    AugmentedView,
    AugMixView,
    CenterGuide,
    ClipGuide,
    DinoGuide,
    DrawnByGuide,
    EncodeResources,
    EvaluateSettings,
    GuidedView,
    GuideSettings,
    ModelSettings,
    ProjectSettings,
    PromptedView,
    RandomGuide,
    RandomView,
    ScoreSettings,
    Settings,
    SquaresView,
    ViewSettings,
)

KINDS_OF_GUIDE = {"clip": ClipGuide, "dino": DinoGuide, "random": RandomGuide, "center": CenterGuide}
DEFAULT_VIEWS = {
    view.kind: view
    for view in (RandomView(), GuidedView(), SquaresView(), AugmentedView(), AugMixView(), PromptedView())
} | {"wca_code": SquaresView(preset="wca_code", crops=100), "abs_code": GuidedView(preset="abs_code")}
"""View sets that need no entry: one of each kind, and those of the methods that follow their authors' code."""

DEFAULT_METHODS = tuple(name for name in ZERO_SHOT if name != "wca")
"""What a job with descriptors runs that names no methods: all zero-shot ones but wca, alone in reading its views."""


def _as_method(value: Any) -> Method:
    return value if isinstance(value, Method) else parse_method(value)


def _with_kind(name: str, view: Any) -> Any:
    """A view set that is called as a default one, and says no kind, is a change of that one."""
    if name in DEFAULT_VIEWS and isinstance(view, Mapping) and "kind" not in view:
        default = DEFAULT_VIEWS[name]
        return {**default.model_dump(exclude_unset=True), "kind": default.kind, **view}
    return view


class Resources(Settings):
    """What the stages may use of the cluster."""

    encode: EncodeResources = EncodeResources()
    """the image encoders"""
    wait_minutes: Annotated[float, Field(ge=0)] = 10.0
    """how long to wait for a cluster that cannot give what is asked for yet; a Ray on this machine alone never grows"""


class Job(Settings):
    """A job: a data set, a model, named guides, views and descriptor sets, and the methods to compare on them."""

    name: str = ""
    """name of the job; default: the file's name"""
    store: str = ""
    """folder of everything computed, or s3://BUCKET/FOLDER, gs://...; default: `runs/NAME` beside the job file"""
    dataset: DatasetSettings
    """the images"""
    model: ModelSettings = ModelSettings()
    """the CLIP model"""
    guides: dict[str, GuideSettings] = {}
    """named sources of saliency; `clip`, `dino`, `random` and `center` need no entry"""
    views: dict[str, ViewSettings] = {}
    """named sets of views; default: what the methods need"""
    descriptors: dict[str, DescriptorSettings] = {}
    """named sets of descriptors"""
    describe: DescribeSettings = DescribeSettings()
    """how language models are asked for descriptors"""
    methods: list[Annotated[SerializeAsAny[Method], BeforeValidator(_as_method)]] = []
    """methods, a name or a mapping with `name` and settings; default: clip, and with descriptors all but wca"""
    decode: Literal["reduced", "full"] = "reduced"
    """reduced: photographs are scaled down, by a whole number, to twice what their smallest crop needs; full: never"""
    seed: int | list[int] = 0
    """seed of the crop draws; with a list, every method that reads crops is run on each"""
    resources: Resources = Resources()
    """what stages may use of the cluster"""
    score: ScoreSettings = ScoreSettings()
    """what is kept of every prediction"""
    evaluate: EvaluateSettings = EvaluateSettings()
    """how accuracy is reported"""
    project: ProjectSettings = ProjectSettings()
    """what LanceDB shows of the features, and how it is searched"""
    max_rejects: Annotated[float, Field(ge=0, le=1)] = 0.01
    """share of images that may be unreadable before a stage stops (never at ten or fewer)"""

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if "/" in value or "\\" in value:
            raise ValueError("a job's name has no slashes: it names a folder")
        return value

    @field_validator("seed")
    @classmethod
    def _distinct_seeds(cls, value: int | list[int]) -> int | list[int]:
        if isinstance(value, list) and (not value or len(set(value)) != len(value)):
            raise ValueError("a list of seeds has at least one, and each once")
        return value

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        """Fill in what follows from the rest of the file: methods, view sets, implicit guides."""
        if not isinstance(data, Mapping):
            return data
        filled = dict(data)
        if isinstance(filled.get("views"), Mapping):
            filled["views"] = {name: _with_kind(name, view) for name, view in filled["views"].items()}
        if not filled.get("methods"):
            filled["methods"] = list(DEFAULT_METHODS) if filled.get("descriptors") else ["clip"]
        return filled

    @model_validator(mode="after")
    def _resolve(self) -> Job:
        methods = [self._resolve_method(method) for method in self.methods]
        titles = [method.row_name for method in methods]
        for title in titles:
            if titles.count(title) > 1:
                raise ValueError(f"methods: two are called {title!r}; give one of them a `label`")
        views = dict(self.views)
        for method in methods:
            name = getattr(method, "views", None)
            if name is not None and name not in views:
                views[name] = DEFAULT_VIEWS[name]
            if name is not None:
                _check_crops(method, name, views[name])
            if isinstance(method, FewShotMethod):
                _check_splits(method, self.dataset)
                augmentations = method.augmentations
                if augmentations is not None and augmentations not in views:
                    views[augmentations] = self._augmented_views(method)
        guides = dict(self.guides)
        for name, view in views.items():
            if isinstance(view, DrawnByGuide) and view.guide not in guides:
                if view.guide not in KINDS_OF_GUIDE:
                    known = ", ".join([*guides, *(kind for kind in KINDS_OF_GUIDE if kind not in guides)])
                    raise ValueError(f"views.{name}.guide: no guide is called {view.guide!r}; there are {known}")
                guides[view.guide] = KINDS_OF_GUIDE[view.guide]()
        object.__setattr__(self, "methods", methods)
        object.__setattr__(self, "views", views)
        object.__setattr__(self, "guides", guides)
        return self

    def _resolve_method(self, method: Method) -> Method:
        """The method with the names of the view set and descriptor set that it reads."""
        changes: dict[str, str | None] = {}
        if method.needs_views:
            changes["views"] = self._choose_views(method)
        elif getattr(method, "views", None) is not None:
            changes["views"] = None  # a method that could read crops, told to read the whole image
        if method.needs_descriptors:
            changes["descriptors"] = self._choose_descriptors(method)
        return method.model_copy(update=changes)

    def _augmented_views(self, method: FewShotMethod) -> ViewSettings:
        """The view set, not in the job file, that holds the versions of a method's shots."""
        if method.augmentations not in DEFAULT_VIEWS:
            known = ", ".join([*self.views, *(name for name in DEFAULT_VIEWS if name not in self.views)])
            raise ValueError(
                f"methods.{method.row_name}.augmented_views: no view set is called {method.augmentations!r}; "
                f"there are {known}"
            )
        return DEFAULT_VIEWS[method.augmentations]

    def _choose_views(self, method: Method) -> str:
        known = [*self.views, *(name for name in DEFAULT_VIEWS if name not in self.views)]
        if method.views is not None:
            if method.views not in known:
                raise ValueError(
                    f"methods.{method.row_name}.views: no view set is called {method.views!r}; "
                    f"there are {', '.join(known)}"
                )
            return method.views
        kind = method.kind_of_views
        fitting = [name for name, view in self.views.items() if view.kind == kind]
        if kind in fitting or (not fitting and kind not in self.views):
            return kind  # the set that is called as its kind, there or by default
        if len(fitting) == 1:
            return fitting[0]
        raise ValueError(f"methods.{method.row_name}.views: say which view set it reads, one of {', '.join(known)}")

    def _choose_descriptors(self, method: Method) -> str:
        named, sets = method.descriptors, list(self.descriptors)
        if not sets:
            raise ValueError(
                f"methods.{method.row_name}: needs descriptors, and the job has none; for example "
                "descriptors: {sentences: {provider: file, path: descriptors.json}}, or {names: {provider: names}}"
            )
        if named is None and len(sets) > 1:
            raise ValueError(
                f"methods.{method.row_name}.descriptors: say which descriptor set it reads, one of {', '.join(sets)}"
            )
        if named is not None and named not in sets:
            raise ValueError(
                f"methods.{method.row_name}.descriptors: no descriptor set is called {named!r}; "
                f"there are {', '.join(sets)}"
            )
        return named or sets[0]

    @property
    def key_variables(self) -> list[str]:
        """Names of the environment variables that hold keys of the endpoints that the job asks."""
        return [one.variable_of_key for one in self.descriptors.values() if isinstance(one, OpenAIDescriptors)]

    @property
    def seeds(self) -> list[int]:
        return self.seed if isinstance(self.seed, list) else [self.seed]

    @property
    def precision(self) -> Literal["fp32", "fp16", "bf16"]:
        """The encoder's arithmetic; `auto` is resolved from the job file alone, since a fingerprint depends on it."""
        if self.model.precision != "auto":
            return self.model.precision
        gpus = self.resources.encode.gpus
        return "fp16" if gpus != "auto" and gpus > 0 else "fp32"


def _check_splits(method: FewShotMethod, dataset: DatasetSettings) -> None:
    """That a data set which names its splits has those that the method needs. Raises ValueError."""
    needed = ["support", *["validation"] * (method.search is True)]
    for split in needed:
        if dataset.splits is not None and getattr(dataset.splits, split) is None:
            why = "reads labelled images" if split == "support" else "searches alpha and beta (`search`)"
            raise ValueError(
                f"methods.{method.row_name} {why}: name the split that holds them, "
                "for example dataset.splits: {query: test, support: train, validation: val}"
            )


def _check_crops(method: Method, name: str, view: ViewSettings) -> None:
    """That the view set has the crops that the method reads. Raises ValueError."""
    where = f"methods.{method.row_name}"
    most, weights = getattr(method, "max_crops", None), getattr(method, "crop_weights", None)
    if most is not None and most > view.crops:
        raise ValueError(
            f"{where}.max_crops: {most}, and view set {name!r} has {view.crops} crops; raise `crops` there or read less"
        )
    read = (most or view.crops) + bool(getattr(method, "include_global", False))
    if isinstance(weights, list) and len(weights) != read:
        raise ValueError(f"{where}.crop_weights: {len(weights)} weights for {read} crops; give one for each")
    if getattr(method, "crops", None) == "feature" and not getattr(view, "feature_crops", False):
        raise ValueError(
            f"{where}.crops: view set {name!r} has no feature crops; name a guided one with feature_crops: true"
        )

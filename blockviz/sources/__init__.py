"""Where models and data come from: the hub, a package wheel, a folder, a file. Base room only."""

from blockviz.sources.cache import cache_dir, hub_cache, keep_inside_cache
from blockviz.sources.fetch import conversion_folder, fetch_model_files, metadata
from blockviz.sources.hub import hub_metadata
from blockviz.sources.records import (
    DEMO_DATA,
    DEMO_MODEL,
    Member,
    ModelFiles,
    ModelMetadata,
    ModelRef,
    Source,
    Wheel,
)
from blockviz.sources.refs import parse_model_ref
from blockviz.sources.wheel import fetch_wheel_member

__all__ = [
    "DEMO_DATA",
    "DEMO_MODEL",
    "Member",
    "ModelFiles",
    "ModelMetadata",
    "ModelRef",
    "Source",
    "Wheel",
    "cache_dir",
    "conversion_folder",
    "fetch_model_files",
    "fetch_wheel_member",
    "hub_cache",
    "hub_metadata",
    "keep_inside_cache",
    "metadata",
    "parse_model_ref",
]

"""What may be asked for: presets, and the schema of a recipe."""

from typing import Any

from fastapi import APIRouter

from app.schemas import API
from worker.compression import PRESETS, Recipe

router = APIRouter(prefix=API, tags=["recipes"])


@router.get("/recipes")
def list_recipes() -> dict[str, Any]:
    """The presets, each as the recipe that its name stands for."""
    return {name: recipe.model_dump(mode="json") for name, recipe in PRESETS.items()}


@router.get("/recipe-schema")
def get_recipe_schema() -> dict[str, Any]:
    """The JSON Schema of a recipe, with a description of every field."""
    schema: dict[str, Any] = Recipe.model_json_schema()
    return schema

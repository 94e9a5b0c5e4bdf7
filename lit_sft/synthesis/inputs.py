"""Which settings a recipe reads: files that it needs, and settings that it would not use."""

from __future__ import annotations

from dataclasses import fields

from data_modules.errors import UserError
from lit_sft.synthesis.recipe import Recipe
from lit_sft.synthesis.settings import SynthesisSettings


def check_inputs(settings: SynthesisSettings, recipe: Recipe) -> None:
    """Refuse missing files, and settings that the recipe would not use.

    Args:
        settings: What to read.
        recipe: What reads it.

    Raises:
        UserError: If there are any.
    """
    reads, name = recipe.reads, f"recipe {recipe.name}"
    needs_articles = reads == "article" or (recipe.shows_article and reads != "tasks")
    if needs_articles and not settings.articles:
        raise UserError(f"--articles: not given; {name} makes conversations about articles. Set it to text files.")
    if reads != "article" and not settings.records:
        what = {"pair": "pairs of a question and its answer", "question": "questions", "tasks": "seed tasks"}[reads]
        raise UserError(f"--records: not given; {name} reads {what}. Set it to files of them.")
    if reads == "article" and settings.records:
        raise UserError(f"--records: {name} reads articles only; remove the setting.")
    if reads == "tasks" and settings.articles:
        raise UserError(f"--articles: {name} reads seed tasks only; remove the setting.")
    if (reads == "tasks") != (settings.requests is not None):
        problem = "not given; how many requests should be made?" if reads == "tasks" else f"{name} makes one for each "
        more = "" if reads == "tasks" else "article or record; use --max_articles."
        raise UserError(f"--requests: {problem}{more}")
    if settings.language != "auto" and settings.language not in recipe.languages:
        raise UserError(f"--language {settings.language}: {name} has no prompts in that language.")
    _refuse_unused(settings, recipe)


def _refuse_unused(settings: SynthesisSettings, recipe: Recipe) -> None:
    """Refuse what would have no effect."""
    reads_articles = recipe.reads == "article"
    unused = {
        "examples": recipe.reads != "tasks",
        "format": reads_articles,
        "long_articles": not reads_articles,
        "max_characters": not settings.articles,
        "txt_documents": not settings.articles,
    }
    for each in fields(settings):
        if unused.get(each.name) and getattr(settings, each.name) != each.default:
            raise UserError(f"--{each.name}: has no effect on recipe {recipe.name} here; remove the setting.")

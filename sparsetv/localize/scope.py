"""Which tensors a task may keep entries of: named presets and globs."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sparsetv.errors import ScopeError, UsageError

_BLOCK = re.compile(r"(^|\.)(layers?|h|blocks?|resblocks|encoders?|decoders?|stages?|groups?|transformer)\.\d+\.")
_EMBEDDING = re.compile(r"(^|\.)(\w*embed\w*|wte|wpe|wpte|shared|tok_\w+|class_token|cls_token)(\.|$)")
_HEAD = re.compile(
    r"(^|\.)(lm_head|score|classifier|classification_head|qa_outputs|cls|head|heads|fc|"
    r"text_projection|visual_projection|logit_scale|vocab_\w+|predictions|generator_\w+)(\.|$)"
)
_BUFFER = re.compile(r"(^|\.)(attn|attention)\.(bias|masked_bias)$|(^|\.)(inv_freq|position_ids)$")
PRESETS = ("blocks", "body", "all")


def is_buffer(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is a constant that old checkpoints saved (a causal mask, rotary frequencies), not a weight."""
    mask_like = len(shape) in (0, 4) or name.endswith(("inv_freq", "position_ids"))
    return mask_like and _BUFFER.search(name) is not None


@dataclass(frozen=True, slots=True)
class Scope:
    """A preset, narrowed or replaced by globs over tensor names.

    Attributes:
        preset: `blocks` (the transformer blocks, as in the paper), `body` (all but embeddings and heads), `all`,
            or `globs` (only what `include` matches).
        include: Globs of which a name must match one, if there are any.
        exclude: Globs of which a name must match none.
    """

    preset: str = "blocks"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @classmethod
    def parse(cls, words: Iterable[str]) -> "Scope":
        """From the command line's words: one preset, or globs; a leading `!` excludes, commas and spaces separate.

        Raises:
            ScopeError: Two presets at once.
        """
        listed = [part for word in words for part in word.replace(",", " ").split()]
        presets = [word for word in listed if word in PRESETS]
        if len(presets) > 1:
            raise ScopeError(f"scopes {presets[0]} and {presets[1]} at once; name one")
        include = tuple(word for word in listed if word not in PRESETS and not word.startswith("!"))
        exclude = tuple(word[1:] for word in listed if word.startswith("!"))
        return cls((*presets, "globs" if include else "blocks")[0], include, exclude)

    def select(self, names: Iterable[str]) -> tuple[str, ...]:
        """Names inside the scope, ascending.

        Raises:
            ScopeError: There are none.
        """
        listed = sorted(names)
        chosen = self.covered(listed)
        if not chosen:
            shown = ", ".join(listed[:4])
            raise ScopeError(
                f"scope {self.describe()} covers none of the {len(listed)} tensors that base and fine-tune "
                f"share ({shown}, …); try `--scope body`, `--scope all` or a glob"
            )
        return chosen

    def covered(self, names: Iterable[str]) -> tuple[str, ...]:
        """Names inside the scope, ascending; maybe none."""
        return tuple(name for name in sorted(names) if self._covers(name))

    def describe(self) -> str:
        """The scope in the command line's words."""
        preset = () if self.preset == "globs" else (self.preset,)
        return " ".join((*preset, *self.include, *("!" + glob for glob in self.exclude)))

    def _covers(self, name: str) -> bool:
        if any(fnmatchcase(name, glob) for glob in self.exclude):
            return False
        if self.include and not any(fnmatchcase(name, glob) for glob in self.include):
            return False
        if self.preset == "blocks":
            return _BLOCK.search(name) is not None
        if self.preset == "body":
            return _BLOCK.search(name) is not None or not (_EMBEDDING.search(name) or _HEAD.search(name))
        if self.preset == "all":
            return True
        if self.preset == "globs":
            return bool(self.include)
        raise UsageError(f"unknown scope preset {self.preset!r}; known are {', '.join(PRESETS)}")

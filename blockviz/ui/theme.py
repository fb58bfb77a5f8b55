"""Paper and ink with one teal accent, as a gradio theme. Sizes and panels are in style.css."""

from __future__ import annotations

from gradio.themes.base import Base
from gradio.themes.utils import colors, sizes

SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
MONO = ("ui-monospace", "SF Mono", "Cascadia Mono", "Menlo", "Consolas", "monospace")
TEAL = colors.Color(
    name="teal", c50="#eef7f6", c100="#e2f1ef", c200="#bfe0dc", c300="#8fc9c2", c400="#4fc3b8",
    c500="#1f8d86", c600="#0b6e69", c700="#095a56", c800="#0a4744", c900="#0b3836", c950="#062322",
)  # fmt: skip
INK = colors.Color(
    name="ink", c50="#fbfaf7", c100="#f4f2ec", c200="#e4e1da", c300="#c9c4ba", c400="#9aa3ab",
    c500="#6b737c", c600="#5d656e", c700="#3a4148", c800="#2c3238", c900="#1b1f23", c950="#14171a",
)  # fmt: skip
PAPER, PANEL, LINE, SOFT = "#fbfaf7", "#ffffff", "#e4e1da", "#5d656e"
NIGHT, NIGHT_PANEL, NIGHT_LINE, NIGHT_SOFT = "#14171a", "#1b1f23", "#2c3238", "#9aa3ab"


class Paper(Base):
    """The look of every control that gradio draws for us."""

    def __init__(self) -> None:
        super().__init__(
            primary_hue=TEAL,
            secondary_hue=TEAL,
            neutral_hue=INK,
            text_size=sizes.text_md,
            spacing_size=sizes.spacing_md,
            radius_size=sizes.radius_md,
            font=SANS,
            font_mono=MONO,
        )
        self.name = "blockviz"
        super().set(**_both(_SURFACES), **_both(_CONTROLS), **_SIZES)


_SURFACES = {
    "body_background_fill": (PAPER, NIGHT),
    "body_text_color": ("#1c2024", "#e9e7e2"),
    "body_text_color_subdued": (SOFT, NIGHT_SOFT),
    "background_fill_primary": (PANEL, NIGHT_PANEL),
    "background_fill_secondary": (PAPER, NIGHT),
    "border_color_primary": (LINE, NIGHT_LINE),
    "block_background_fill": ("transparent", "transparent"),
    "block_border_width": ("0px", "0px"),
    "block_shadow": ("none", "none"),
    "block_label_background_fill": ("transparent", "transparent"),
    "block_label_border_width": ("0px", "0px"),
    "block_title_text_color": (SOFT, NIGHT_SOFT),
    "block_label_text_color": (SOFT, NIGHT_SOFT),
    "panel_background_fill": (PANEL, NIGHT_PANEL),
    "panel_border_color": (LINE, NIGHT_LINE),
    "color_accent": ("#0b6e69", "#4fc3b8"),
    "color_accent_soft": ("#e2f1ef", "#173532"),
    "link_text_color": ("#0b6e69", "#4fc3b8"),
    "link_text_color_hover": ("#095a56", "#8fc9c2"),
    "link_text_color_visited": ("#0b6e69", "#4fc3b8"),
    "table_border_color": (LINE, NIGHT_LINE),
    "table_even_background_fill": (PANEL, NIGHT_PANEL),
    "table_odd_background_fill": (PANEL, NIGHT_PANEL),
}
_CONTROLS = {
    "input_background_fill": (PANEL, "#171b1f"),
    "input_border_color": ("#8c8f8c", "#5b646c"),
    "input_border_width": ("1px", "1px"),
    "input_border_color_focus": ("#1d6fe0", "#7db1ff"),
    "input_shadow": ("none", "none"),
    "input_shadow_focus": ("0 0 0 1px #1d6fe0", "0 0 0 1px #7db1ff"),
    "button_primary_background_fill": ("#0b6e69", "#4fc3b8"),
    "button_primary_background_fill_hover": ("#095a56", "#8fc9c2"),
    "button_primary_text_color": ("#ffffff", "#14171a"),
    "button_primary_border_color": ("#0b6e69", "#4fc3b8"),
    "button_secondary_background_fill": (PANEL, NIGHT_PANEL),
    "button_secondary_background_fill_hover": ("#f4f2ec", "#242a2f"),
    "button_secondary_border_color": ("#c9c4ba", "#3f474e"),
    "button_secondary_text_color": ("#1c2024", "#e9e7e2"),
    "button_primary_shadow": ("none", "none"),
    "button_secondary_shadow": ("none", "none"),
    "slider_color": ("#0b6e69", "#4fc3b8"),
    "checkbox_background_color_selected": ("#0b6e69", "#1f8d86"),
    "checkbox_border_color": ("#8c8f8c", "#5b646c"),
    "checkbox_border_color_selected": ("#0b6e69", "#4fc3b8"),
    "checkbox_label_background_fill": ("transparent", "transparent"),
    "checkbox_label_background_fill_hover": ("transparent", "transparent"),
    "checkbox_label_background_fill_selected": ("transparent", "transparent"),
    "checkbox_label_border_width": ("0px", "0px"),
    "checkbox_label_shadow": ("none", "none"),
    "checkbox_label_text_color_selected": ("#1c2024", "#e9e7e2"),
}
_SIZES = {
    "block_title_text_size": "13px",
    "block_info_text_size": "12.5px",
    "button_large_padding": "7px 18px",
    "button_large_text_size": "14.5px",
    "button_large_text_weight": "600",
    "button_large_radius": "8px",
    "input_text_size": "14.5px",
    "section_header_text_size": "14.5px",
}
# Variables of the theme that have no separate dark value.
_ONE_VALUE = {"color_accent"}


def _both(table: dict[str, tuple[str, str]]) -> dict[str, str]:
    out = {}
    for name, (light, dark) in table.items():
        out[name] = light
        if name not in _ONE_VALUE:
            out[f"{name}_dark"] = dark
    return out

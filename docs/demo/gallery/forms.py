from __future__ import annotations

from typing import Any

from django import forms

from gallery.models import Exhibit


class ExhibitForm(forms.ModelForm):
    """Upload a picture, a document, or both."""

    class Meta:
        model = Exhibit
        fields = ["title", "picture", "document"]

    def clean(self) -> dict[str, Any]:
        """Refuse an exhibit with nothing to show."""
        cleaned = super().clean() or {}
        if not self.errors and not (cleaned.get("picture") or cleaned.get("document")):
            raise forms.ValidationError("Choose a picture or a document.")
        return cleaned

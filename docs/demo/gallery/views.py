from __future__ import annotations

from django.views.generic import CreateView, DetailView, ListView

from gallery.forms import ExhibitForm
from gallery.models import Exhibit


class ExhibitList(ListView):
    """All exhibits, the latest first."""

    model = Exhibit
    paginate_by = 50


class ExhibitDetail(DetailView):
    """One exhibit."""

    model = Exhibit


class ExhibitAdd(CreateView):
    """Upload an exhibit."""

    model = Exhibit
    form_class = ExhibitForm

from __future__ import annotations

from django.urls import path

from gallery import views

app_name = "gallery"
urlpatterns = [
    path("", views.ExhibitList.as_view(), name="exhibits"),
    path("add/", views.ExhibitAdd.as_view(), name="add"),
    path("<int:pk>/", views.ExhibitDetail.as_view(), name="exhibit"),
]

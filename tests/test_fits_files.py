"""Packages that take files in, clean them up, or keep their own."""

from __future__ import annotations

from tests.fitting import Run

pytest_plugins = ["tests.fitting"]

DOCUMENT = """
class Document(models.Model):
    title = models.CharField(max_length=100)
    file = models.FileField(upload_to="documents", blank=True)
"""


def test_django_forms(fits: Run) -> None:
    """A model form takes an upload, replaces it, and clears it."""
    fits(
        """
        from django.forms import modelform_factory

        Form = modelform_factory(Document, fields=["title", "file"])
        form = Form({"title": "a"}, {"file": SimpleUploadedFile("a b.txt", b"content")})
        document = form.save()
        assert document.file.name == "documents/a_b.txt"
        arrive()
        form = Form({"title": "a"}, {"file": SimpleUploadedFile("a b.txt", b"other")}, instance=document)
        document = form.save()
        assert document.file.name != "documents/a_b.txt"
        assert document.file.open().read() == b"other"
        Form({"title": "a", "file-clear": "on"}, {}, instance=document).save()
        assert Document.objects.get().file.name == ""
        """,
        package="django",
        models=DOCUMENT,
    )


def test_rest_framework(fits: Run) -> None:
    """A file that is uploaded through an API is answered with the URL of the side that serves it."""
    fits(
        """
        from rest_framework.test import APIClient

        client = APIClient()
        answer = client.post("/documents/", {"title": "a", "file": SimpleUploadedFile("a.txt", b"content")})
        assert answer.status_code == 201, answer.content
        assert answer.json()["file"] == "http://testserver/media/documents/a.txt"
        arrive()
        (found,) = client.get("/documents/").json()
        assert found["file"] == "https://remote/documents/a.txt"
        assert default_storage.open("documents/a.txt").read() == b"content"
        refused = client.post("/documents/", {"title": "a", "file": "no file"})
        assert refused.status_code == 400
        assert list(states()) == ["documents/a.txt"]
        """,
        package="djangorestframework",
        apps=("rest_framework",),
        models=DOCUMENT,
        urls="""
        from rest_framework.routers import DefaultRouter
        from rest_framework.serializers import ModelSerializer
        from rest_framework.viewsets import ModelViewSet

        from shop.models import Document

        class DocumentSerializer(ModelSerializer):
            class Meta:
                model = Document
                fields = ["id", "title", "file"]

        class DocumentViewSet(ModelViewSet):
            queryset = Document.objects.all()
            serializer_class = DocumentSerializer

        router = DefaultRouter()
        router.register("documents", DocumentViewSet)
        urlpatterns = router.urls
        """,
    )


def test_cleanup(fits: Run) -> None:
    """The file of a row that is changed or deleted is deleted, on both sides, after the commit and not before."""
    fits(
        """
        from django.db import transaction

        document = Document.objects.create(title="a", file=SimpleUploadedFile("a.txt", b"content"))
        arrive()
        document.file = SimpleUploadedFile("b.txt", b"other")
        document.save()
        assert states() == {"documents/a.txt": "deleted", "documents/b.txt": "queued"}
        arrive()
        for side in ("local", "remote"):
            assert os.listdir(f"{side}/documents") == ["b.txt"]
        try:
            with transaction.atomic():
                document.delete()
                raise KeyError
        except KeyError:
            assert default_storage.exists("documents/b.txt")
        Document.objects.get().delete()
        assert not default_storage.exists("documents/b.txt")
        arrive()
        assert os.listdir("remote/documents") == []
        """,
        package="django-cleanup",
        apps=("django_cleanup.apps.CleanupConfig",),
        models=DOCUMENT,
    )


def test_import_export(fits: Run) -> None:
    """Rows are exported and imported with the names of their files; uploads wait in the storage between two pages."""
    fits(
        """
        from import_export.resources import modelresource_factory
        from import_export.tmp_storages import MediaStorage

        document = Document.objects.create(title="a", file=SimpleUploadedFile("a.txt", b"content"))
        resource = modelresource_factory(Document)()
        exported = resource.export()
        assert exported.dict[0]["file"] == "documents/a.txt"
        arrive()
        exported.headers
        result = resource.import_data(exported, raise_errors=True)
        assert Document.objects.get().file.url == "https://remote/documents/a.txt"
        assert Document.objects.get().file.read() == b"content"

        waiting = MediaStorage(name="upload", encoding="utf-8", read_mode="r")
        waiting.save("id,title\\n")
        assert waiting.read() in ("id,title\\n", b"id,title\\n")
        waiting.remove()
        arrive()
        """,
        package="django-import-export",
        apps=("import_export",),
        models=DOCUMENT,
    )


def test_whitenoise(fits: Run) -> None:
    """Static files go their own way beside a default storage that is queued."""
    fits(
        """
        os.makedirs("assets", exist_ok=True)
        open("assets/site.css", "w").write("body {}")
        call_command("collectstatic", interactive=False, verbosity=0)
        assert storages["staticfiles"].url("site.css").startswith("/static/site.")
        assert states() == {}

        from django.test import Client

        answer = Client().get(storages["staticfiles"].url("site.css"))
        assert answer.status_code == 200
        document = Document.objects.create(title="a", file=SimpleUploadedFile("a.txt", b"content"))
        arrive()
        assert document.file.url == "https://remote/documents/a.txt"
        """,
        package="whitenoise",
        apps=("whitenoise.runserver_nostatic", "django.contrib.staticfiles"),
        models=DOCUMENT,
        settings="""
STATIC_ROOT, STATICFILES_DIRS = BASE_DIR / "static", [BASE_DIR / "assets"]
STORAGES["staticfiles"] = {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"}
MIDDLEWARE.insert(0, "whitenoise.middleware.WhiteNoiseMiddleware")
""",
    )

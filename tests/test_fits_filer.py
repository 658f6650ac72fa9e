"""django-filer, which builds storages by itself from class and options, and moves files between two of them."""

from __future__ import annotations

from tests.fitting import Run

pytest_plugins = ["tests.fitting"]

SETTINGS = """
STORAGES["private"] = queued("private/")
STORAGES["thumbnails"] = queued("thumbnails/", overwrite=True)


def filed(alias):
    # The rest of its options it takes from STORAGES.
    options = {"alias": alias, "remote": "django.core.files.storage.FileSystemStorage"}
    return {"ENGINE": "queued_storage.backends.QueuedFileSystemStorage", "OPTIONS": options}


FILER_STORAGES = {
    "public": {"main": filed("default"), "thumbnails": filed("thumbnails")},
    "private": {"main": filed("private"), "thumbnails": filed("thumbnails")},
}
THUMBNAIL_DEFAULT_STORAGE_ALIAS = "thumbnails"
"""


def test_django_filer(fits: Run) -> None:
    """Files and their thumbnails arrive, move from the public to the private storage and back, and are deleted."""
    fits(
        """
        from filer.models import File, Image as FilerImage

        file = File.objects.create(file=SimpleUploadedFile("a.txt", b"content"), original_filename="a.txt")
        image = FilerImage.objects.create(file=picture(), original_filename="a.png")
        assert (image.width, image.height, image.file.storage.alias) == (400.0, 200.0, "default")
        thumbnail = image.file.get_thumbnail({"size": (100, 100)})
        assert thumbnail.url.startswith("/media/thumbnails/"), thumbnail.url
        arrive()
        file, image = File.objects.get(pk=file.pk), FilerImage.objects.get()
        assert file.url.startswith("https://remote/filer_public/")
        assert file.file.open().read() == b"content"
        again = image.file.get_thumbnail({"size": (100, 100)})
        assert again.url.startswith("https://remote/thumbnails/"), again.url
        assert again.name == thumbnail.name

        # Made private: it is copied to the other storage and deleted from the first one.
        public = file.file.name
        file.is_public = False
        file.save()
        assert file.file.storage.alias == "private"
        assert not default_storage.exists(public)
        assert storages["private"].open(file.file.name).read() == b"content"
        arrive()
        assert storages["private"].using_remote(file.file.name)

        name = image.file.name
        image.delete()
        assert not default_storage.exists(name)
        assert not storages["thumbnails"].exists(thumbnail.name)
        arrive()
        run_owed()
        assert {name for name, state in states().items() if state != "deleted"} == {file.file.name}
        """,
        package="django-filer",
        apps=("django.contrib.admin", "django.contrib.messages", "easy_thumbnails", "filer"),
        settings=SETTINGS,
        urls="""
        from django.urls import include, path

        urlpatterns = [path("filer/", include("filer.urls"))]
        """,
    )

"""Packages that make smaller pictures of pictures: fresh uploads, transferred ones, and their own files."""

from __future__ import annotations

import pytest

from tests.fitting import Run

pytest_plugins = ["tests.fitting"]

PHOTO = """
class Photo(models.Model):
    image = models.ImageField(upload_to="photos", width_field="width", height_field="height")
    width = models.PositiveIntegerField(default=0)
    height = models.PositiveIntegerField(default=0)
"""


def test_django_itself(fits: Run) -> None:
    """An ``ImageField`` with dimension fields, and its queued twin, know the size before and after the transfer."""
    fits(
        """
        photo = Photo.objects.create(image=picture())
        other = Other.objects.create(image=picture())
        assert (photo.width, photo.height) == (400, 200) == (other.image.width, other.image.height)
        assert photo.image.url == "/media/photos/a.png"
        arrive()
        photo, other = Photo.objects.get(), Other.objects.get()
        assert photo.image.url == "https://remote/photos/a.png"
        assert (photo.image.width, other.image.height, photo.image.size) == (400, 200, len(picture().read()))
        photo.image.save("b.png", picture("blue", (10, 20)))
        assert (photo.width, photo.height) == (10, 20)
        photo.image.delete()
        assert not photo.image
        assert (photo.width, photo.height) == (None, None)
        """,
        package="django",
        models=PHOTO.replace("default=0", "null=True")
        + """
from queued_storage.fields import QueuedImageField

class Other(models.Model):
    image = QueuedImageField(upload_to="others")
""",
    )


THUMBNAILS = """
STORAGES["thumbnails"] = queued("thumbnails", overwrite=True)
"""


@pytest.mark.parametrize("remote", ["files", "memory"])
def test_easy_thumbnails(fits: Run, remote: str) -> None:
    """Thumbnails are made of fresh and of transferred pictures, arrive themselves, and are made anew after a change."""
    in_memory = """
for name in ("default", "thumbnails"):
    options = {"name": name, "base_url": f"https://remote/{'thumbnails/' if name == 'thumbnails' else ''}"}
    STORAGES[name]["OPTIONS"] |= {"remote": "queued_storage.testing.FaultyRemoteStorage", "remote_options": options}
"""
    fits(
        """
        photo = Photo.objects.create(image=picture())
        thumbnail = photo.image["small"]
        assert (thumbnail.width, thumbnail.height) == (100, 50)
        assert thumbnail.url.startswith("/media/thumbnails/photos/a.png")
        arrive()
        photo = Photo.objects.get()
        assert photo.image["small"].url == storages["thumbnails"].url(thumbnail.name)
        assert photo.image["small"].url.startswith("https://remote/thumbnails/photos/a.png")
        assert Image.open(photo.image["small"]).size == (100, 50)
        assert photo.image["large"].width == 300
        arrive()
        # Made anew under the same name: the package deletes and saves, and does not look at the name it gets.
        before = thumbnail.name
        photo = Photo.objects.get()
        made = photo.image.generate_thumbnail({"size": (100, 100)})
        photo.image.save_thumbnail(made)
        assert made.name == before
        arrive()
        assert Image.open(storages["thumbnails"].open(before)).size == (100, 50)
        """,
        package="easy-thumbnails",
        apps=("easy_thumbnails",),
        models="""
        from easy_thumbnails.fields import ThumbnailerImageField

        class Photo(models.Model):
            image = ThumbnailerImageField(upload_to="photos")
        """,
        settings=THUMBNAILS
        + (in_memory if remote == "memory" else "")
        + """
THUMBNAIL_DEFAULT_STORAGE_ALIAS = "thumbnails"
THUMBNAIL_ALIASES = {"": {"small": {"size": (100, 100)}, "large": {"size": (300, 300)}}}
""",
    )


def test_sorl_thumbnail(fits: Run) -> None:
    """Thumbnails are made of fresh and of transferred pictures, arrive themselves, and are found again."""
    fits(
        """
        from sorl.thumbnail import delete, get_thumbnail

        photo = Photo.objects.create(image=picture())
        thumbnail = get_thumbnail(photo.image, "100x100")
        assert (thumbnail.width, thumbnail.height) == (100, 50)
        assert thumbnail.url == f"/media/{thumbnail.name}"
        arrive()
        photo = Photo.objects.get()
        again = get_thumbnail(photo.image, "100x100")
        assert (again.name, again.url) == (thumbnail.name, f"https://remote/{thumbnail.name}")
        assert get_thumbnail(photo.image, "200x200").width == 200
        delete(photo.image)
        assert not default_storage.exists(thumbnail.name)
        arrive()
        assert set(states().values()) == {"deleted"}
        """,
        package="sorl-thumbnail",
        apps=("sorl.thumbnail",),
        models=PHOTO,
        settings="THUMBNAIL_DEBUG = True",
    )


def test_imagekit(fits: Run) -> None:
    """Specs are made of fresh and of transferred pictures, and their files arrive themselves."""
    fits(
        """
        photo = Photo.objects.create(image=picture())
        assert (photo.small.width, photo.small.height) == (50, 25)
        arrive()
        photo = Photo.objects.get()
        assert photo.small.url.startswith("https://remote/CACHE/")
        assert Image.open(photo.small).size == (50, 25)
        assert Image.open(photo.processed).size == (60, 30)
        """,
        package="django-imagekit",
        apps=("imagekit",),
        models="""
        from imagekit.models import ImageSpecField, ProcessedImageField
        from imagekit.processors import ResizeToFit

        class Photo(models.Model):
            image = models.ImageField(upload_to="photos")
            small = ImageSpecField(source="image", processors=[ResizeToFit(50, 50)], format="PNG")
            processed = ProcessedImageField(upload_to="made", processors=[ResizeToFit(60, 60)], format="PNG", null=True)

            def save(self, *args, **kwargs):
                if not self.processed:
                    from django.core.files.base import ContentFile

                    self.image.open()
                    self.processed.save("p.png", ContentFile(self.image.read()), save=False)
                super().save(*args, **kwargs)
        """,
        settings='CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}',
    )


def test_wagtail_images(fits: Run) -> None:
    """An image of Wagtail and its renditions are served locally, then remotely; a deleted image is gone."""
    fits(
        """
        from wagtail.images import get_image_model

        WagtailImage = get_image_model()
        image = WagtailImage.objects.create(title="a", file=picture(), width=400, height=200)
        rendition = image.get_rendition("width-100")
        assert (rendition.width, rendition.height) == (100, 50)
        assert rendition.url.startswith("/media/images/")
        arrive()
        image = WagtailImage.objects.get()
        assert image.get_rendition("width-100").url.startswith("https://remote/images/")
        # Made from the remote copy.
        assert image.get_rendition("width-200").width == 200
        arrive()
        assert image.get_file_hash()
        names = list(states())
        image.delete()
        arrive()
        assert set(states().values()) == {"deleted"}
        assert not any(default_storage.exists(name) for name in names)
        """,
        package="wagtail",
        apps=(
            "wagtail.images",
            "wagtail.documents",
            "wagtail.users",
            "wagtail.admin",
            "wagtail",
            "taggit",
            "modelcluster",
        ),
        settings="""
WAGTAIL_SITE_NAME = "shop"
WAGTAILADMIN_BASE_URL = "http://localhost"
INSTALLED_APPS += ["django.contrib.messages", "django.contrib.staticfiles"]
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
""",
    )

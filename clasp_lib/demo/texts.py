"""Every word of the demo's interface, in each of its languages. A further language is one more column here."""

from __future__ import annotations

LANGUAGES = {"English": "en", "فارسی": "fa"}
"""What a reader chooses from, and the name of the column below."""

RIGHT_TO_LEFT = ("fa",)

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "Search speech with text",
        "about": "Write a sentence, or say it. What comes nearest to it is found by its sound: nothing is transcribed.",
        "tab_search": "Search a collection",
        "tab_moment": "Find the moment",
        "search_query": "What is said in the recording you look for?",
        "moment_query": "What is said at the moment you look for?",
        "query_hint": "A sentence or a few words",
        "spoken": "Or say it",
        "hits": "Answers",
        "search": "Search",
        "moment": "Find",
        "recording": "Your recording",
        "spoken_drop": "Choose a file",
        "spoken_privacy": "It is deleted as soon as it has been searched for.",
        "recording_drop": "Drop a recording here, or choose a file",
        "recording_privacy": (
            "It stays on the computer that runs this page, and is deleted when you close the page. "
            "At most {minutes} minutes and {mb} MB."
        ),
        "record": "Record",
        "stop": "Stop",
        "uploading": "Uploading …",
        "no_microphone": "The microphone cannot be used: allow it, and open this page as https or from localhost.",
        "not_uploaded": "The file did not arrive. Try again.",
        "column_category": "Category",
        "column_speaker": "Speaker",
        "column_language": "Language",
        "column_voice": "Voice",
        "score": "similarity",
        "hits_title": "Nearest first",
        "moments_title": "Moments, nearest first",
        "moment_label": "Moment {rank}: play from {start} to {end}, similarity {score}",
        "play": "Play",
        "waveform": "Waveform of {name}; time runs from left to right",
        "empty_search": "{n} recordings are waiting. Those that come nearest to your words will be listed here.",
        "empty_moment": "Choose a recording and write what you are looking for: the moments will be marked here.",
        "nothing": "Nothing was found. Choose fewer filters.",
        "no_moment": "No speech was found in this recording.",
        "no_query": "Write what you are looking for.",
        "no_recording": "Choose a recording first. Yours may have been deleted because it was not used for long.",
        "no_sound": "The sound of this recording is not there any more.",
        "query_too_long": "The query is too long: at most {most} characters.",
        "too_large": "The file is too large: at most {most} MB.",
        "too_long": "The recording is too long: at most {most} minutes.",
        "spoken_too_long": "The spoken query is too long: at most {most} seconds.",
        "unreadable": "The recording cannot be used: {why}",
        "failed": "This did not work: {why}",
        "busy": "Many people are using this page just now. Try again in a moment.",
    },
    "fa": {
        "title": "جست‌وجوی گفتار با متن",
        "about": (
            "جمله‌ای بنویسید یا بگویید. نزدیک‌ترین صداها از روی آوایشان پیدا می‌شوند و هیچ گفتاری به متن برگردانده نمی‌شود."
        ),
        "tab_search": "جست‌وجو در مجموعه",
        "tab_moment": "یافتن لحظه",
        "search_query": "در صدایی که می‌جویید چه گفته می‌شود؟",
        "moment_query": "در لحظه‌ای که می‌جویید چه گفته می‌شود؟",
        "query_hint": "یک جمله یا چند واژه",
        "spoken": "یا آن را بگویید",
        "hits": "شمار پاسخ‌ها",
        "search": "جست‌وجو",
        "moment": "پیدا کن",
        "recording": "صدای شما",
        "spoken_drop": "برگزیدن فایل",
        "spoken_privacy": "پس از جست‌وجو بی‌درنگ پاک می‌شود.",
        "recording_drop": "فایل صدا را اینجا رها کنید یا برگزینید",
        "recording_privacy": (
            "صدا روی همان رایانه‌ای می‌ماند که این صفحه را اجرا می‌کند و با بستن صفحه پاک می‌شود. "
            "حداکثر {minutes} دقیقه و {mb} مگابایت."
        ),
        "record": "ضبط",
        "stop": "پایان",
        "uploading": "در حال بارگذاری …",
        "no_microphone": "میکروفون در دسترس نیست: اجازه‌ی آن را بدهید و صفحه را با https یا از localhost باز کنید.",
        "not_uploaded": "فایل نرسید. دوباره تلاش کنید.",
        "column_category": "دسته",
        "column_speaker": "گوینده",
        "column_language": "زبان",
        "column_voice": "صدا",
        "score": "شباهت",
        "hits_title": "نزدیک‌ترین‌ها در آغاز",
        "moments_title": "لحظه‌ها، نزدیک‌ترین در آغاز",
        "moment_label": "لحظه‌ی {rank}: پخش از {start} تا {end}، شباهت {score}",
        "play": "پخش",
        "waveform": "شکل موج {name}؛ زمان از چپ به راست می‌گذرد",
        "empty_search": "{n} صدای ضبط‌شده آماده‌ی جست‌وجوست. نزدیک‌ترین‌ها به گفته‌ی شما اینجا فهرست می‌شوند.",
        "empty_moment": "صدایی برگزینید و بنویسید دنبال چه می‌گردید: لحظه‌ها اینجا نشان داده می‌شوند.",
        "nothing": "چیزی پیدا نشد. شرط‌های کمتری برگزینید.",
        "no_moment": "در این صدا گفتاری پیدا نشد.",
        "no_query": "بنویسید دنبال چه می‌گردید.",
        "no_recording": "نخست صدایی برگزینید. شاید صدای شما چون مدتی به کار نرفته پاک شده باشد.",
        "no_sound": "این صدا دیگر در دسترس نیست.",
        "query_too_long": "عبارت بیش از اندازه بلند است: حداکثر {most} نویسه.",
        "too_large": "فایل بیش از اندازه بزرگ است: حداکثر {most} مگابایت.",
        "too_long": "صدا بیش از اندازه بلند است: حداکثر {most} دقیقه.",
        "spoken_too_long": "پرسش گفتاری بیش از اندازه بلند است: حداکثر {most} ثانیه.",
        "unreadable": "این صدا به کار نمی‌آید: {why}",
        "failed": "انجام نشد: {why}",
        "busy": "هم‌اکنون افراد زیادی از این صفحه استفاده می‌کنند. کمی بعد دوباره تلاش کنید.",
    },
}

_PERSIAN_DIGITS = str.maketrans("0123456789", "۰۱۲۳۴۵۶۷۸۹")


def say(language: str, key: str, **values: object) -> str:
    """A text of the interface, with the values in its braces; numbers in the language's own digits."""
    return TEXTS[language][key].format(**{name: number(language, value) for name, value in values.items()})


def number(language: str, value: object) -> str:
    """Numbers, and texts made of digits alone, in the language's digits; names stay as they are."""
    text = f"{value}"
    plain = isinstance(value, int | float) or all(letter in "0123456789.,:" for letter in text)
    return text.translate(_PERSIAN_DIGITS) if plain and language == "fa" else text


def direction(language: str) -> str:
    """ "rtl" or "ltr", as HTML's attribute `dir` takes it."""
    return "rtl" if language in RIGHT_TO_LEFT else "ltr"


def clock(seconds: float, decimals: int = 0) -> str:
    """Seconds as 1:02:03 or 2:03, perhaps with tenths: 2:03.4."""
    whole, rest = divmod(int(seconds * 10**decimals), 10**decimals)
    hours, minutes = whole // 3600, whole // 60 % 60
    tail = f".{rest:0{decimals}}" if decimals else ""
    return (f"{hours}:{minutes:02}" if hours else f"{minutes}") + f":{whole % 60:02}{tail}"

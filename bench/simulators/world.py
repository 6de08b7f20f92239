"""The people and businesses of the simulated world: who they are, which ids Meta shows of them, and what they talk about.

Every person and text is invented. Chance is the caller's `Random`. Must not know webhooks, time or HTTP.
"""

from random import Random

import msgspec

from protocol.commands import ContactRef
from protocol.whatsapp import wire


class SimTenant(msgspec.Struct, frozen=True):
    """One business number as a gateway's tenant has it configured. `display_phone_number` is digits."""

    phone_number_id: str
    waba_id: str
    app_secret: str
    display_phone_number: str


class Person(msgspec.Struct):
    """One customer of one tenant. Changes as people do: a new number, a number shown at last.

    `key` is the simulator's own name for the conversation, `<phone_number_id>/<number>`, and never changes.
    """

    key: str
    number: int
    language: str
    name: str
    phone: str | None
    user_id: str | None
    parent_user_id: str | None = None
    username: str | None = None

    def ids(self) -> tuple[str, ...]:
        """Return the external ids by which the gateway can know the person now."""
        return ContactRef(self.phone, self.user_id, self.parent_user_id).external_ids()

    def contact(self) -> wire.Contact:
        """Return the person as a webhook's `contacts[]` names them."""
        return wire.Contact(
            profile=wire.Profile(name=self.name, username=self.username and f"@{self.username}"),
            wa_id=self.phone,
            user_id=self.user_id,
            parent_user_id=self.parent_user_id,
        )


_COUNTRIES = {"de": ("4915", "DE"), "en": ("4474", "GB"), "fr": ("3361", "FR"), "ar": ("9715", "AE"), "sw": ("2547", "KE")}  # fmt: skip

_NAMES = {
    "de": ("Mira Köhler", "Jürgen Groß", "Anneliese Böhm", "Tarek S.", "Lotte 🌻"),
    "en": ("Ada Whitfield", "Tom", "Priya N.", "Sam O'Dell", "Grace ✨"),
    "fr": ("Élodie Marchand", "Noé Lefèvre", "Zoé", "François-Xavier B.", "Inès 🌊"),
    "ar": ("ليلى منصور", "عمر الخطيب", "سارة", "يوسف", "نور 🌙"),
    "sw": ("Amina Wanjiru", "Baraka", "Juma K.", "Neema", "Zawadi 🦒"),
}


def person(random: Random, tenant: SimTenant, number: int) -> Person:
    """Invent a tenant's customer: 45 % a phone number only, 40 % also a business-scoped id, 15 % a username and no phone number."""
    language = random.choice(list(_COUNTRIES))
    prefix, country = _COUNTRIES[language]
    # The customer's index stands inside both ids, so no two customers of a tenant share one.
    phone = f"{prefix}{number:06d}{random.randrange(100):02d}"
    user_id = new_user_id(random, language, number)
    name = random.choice(_NAMES[language])
    key = f"{tenant.phone_number_id}/{number}"
    lot = random.random()
    if lot < 0.45:
        return Person(key, number, language, name, phone, None)
    if lot < 0.85:
        parent = f"{country}.ENT.{number:06d}{random.randrange(10**7):07d}" if lot < 0.5 else None
        return Person(key, number, language, name, phone, user_id, parent)
    return Person(key, number, language, name, None, user_id, username=f"guest.{number}")


def new_user_id(random: Random, language: str, number: int) -> str:
    """Invent a business-scoped id of the person with this index."""
    _, country = _COUNTRIES[language]
    return f"{country}.{random.randrange(10**13):013d}{number:06d}"


def new_phone(random: Random, person: Person) -> str:
    """Invent the number a person moves to; the leading 9 of the local part is in nobody's first number."""
    prefix, _ = _COUNTRIES[person.language]
    return f"{prefix}9{random.randrange(10**4):04d}{person.number:06d}"


Dialogue = tuple[str, ...]
"""Lines of customer and business in turn, the customer first."""

DIALOGUES: dict[str, dict[str, tuple[Dialogue, ...]]] = {
    "hotel": {
        "en": (
            (
                "Hi! Do you have a double room for the 12th?",
                "We do: 118 with breakfast. Shall I hold it?",
                "Yes please 🙏",
                "Done. See you on the 12th!",
                "Is late check-in possible?",
                "Until midnight, of course.",
            ),
            ("Is the pool open in October?", "It is, and heated to 28 °C.", "Perfect 😍", "Looking forward to you."),
        ),
        "de": (
            (
                "Guten Tag, haben Sie am Wochenende noch ein Zimmer frei?",
                "Ja, ein Doppelzimmer für 96 € inkl. Frühstück.",
                "Größeres Bett möglich?",
                "Natürlich, Kingsize ohne Aufpreis.",
                "Super, dann nehmen wir das 👍",
                "Ist reserviert. Schöne Grüße!",
            ),
            (
                "Grüß dich 👋 wann gibt's Frühstück?",
                "Von 7 bis 10:30 Uhr, sonntags bis 11.",
                "Danke!",
                "Gern geschehen.",
            ),
        ),
        "fr": (
            (
                "Bonjour, une chambre pour deux nuits à partir de jeudi ?",
                "Bonjour ! Oui, il en reste une à 104 € la nuit.",
                "Très bien, je la réserve. Le garage est compris ?",
                "Il est à 9 €, payable sur place.",
                "D'accord, à jeudi 😊",
                "À très bientôt.",
            ),
        ),
        "ar": (
            (
                "مرحبا، هل لديكم غرفة عائلية ليوم الجمعة؟",
                "أهلاً بك، نعم لدينا غرفة واحدة.",
                "كم السعر مع الإفطار؟",
                "أربعمئة وخمسون درهماً.",
                "ممتاز، احجزوها لي 🌹",
                "تم الحجز، أهلاً وسهلاً.",
            ),
        ),
        "sw": (
            (
                "Habari, mna chumba cha watu wawili kesho?",
                "Ndiyo, kimoja kimebaki: KES 6,500.",
                "Sawa, nitalipa kwa M-Pesa.",
                "Asante, karibu sana!",
            ),
        ),
    },
    "shop": {
        "en": (
            (
                "Is the blue one in stock?",
                "Yes, in S and M.",
                "M please. Can you send it today?",
                "It leaves at 4 pm.",
                "You're the best 💙",
                "Enjoy it!",
            ),
            (
                "My parcel says delivered but it isn't here :(",
                "Sorry about that! I'll ask the courier.",
                "Thank you",
                "Found: it is with your neighbour.",
            ),
        ),
        "de": (
            (
                "Habt ihr die Schuhe auch in Größe 43?",
                "Ja, zwei Paar sind noch da.",
                "Könnt ihr eins zurücklegen?",
                "Liegt bis Samstag für Sie bereit.",
                "Vielen Dank, bis morgen!",
                "Bis morgen 👟",
            ),
        ),
        "fr": (
            (
                "Coucou, ma commande est déjà partie ?",
                "Oui, ce matin. Voici le suivi.",
                "Génial, merci beaucoup 🎉",
                "Avec plaisir !",
            ),
        ),
        "ar": (
            (
                "هل يتوفر هذا اللون بمقاس أكبر؟",
                "نعم، متوفر حتى المقاس الكبير جداً.",
                "ممتاز، أريد قطعتين 👌",
                "تم تجهيز طلبك.",
            ),
        ),
        "sw": (
            (
                "Bei ya hii ni ngapi?",
                "KES 1,200, tuna delivery Nairobi yote.",
                "Nitumie mbili tafadhali 🙏",
                "Zinakuja leo jioni.",
            ),
        ),
    },
    "clinic": {
        "en": (
            (
                "Could I move my appointment to Thursday?",
                "Thursday 10:40 or 16:20?",
                "16:20 works",
                "Booked. Please bring your card.",
            ),
            (
                "Are my lab results in?",
                "They arrived this morning, the doctor will call you.",
                "Thanks, that's quick",
                "Take care!",
            ),
        ),
        "de": (
            (
                "Ich bräuchte ein Folgerezept für meine Tabletten.",
                "Liegt ab 14 Uhr am Empfang bereit.",
                "Muss ich die Karte mitbringen?",
                "Ja bitte, das Quartal ist neu.",
                "Alles klar, danke schön",
                "Gute Besserung!",
            ),
        ),
        "fr": (
            (
                "Bonjour docteur, la fièvre est tombée à 37,8 °C.",
                "Très bonne nouvelle. Continuez à boire beaucoup.",
                "Je garde le rendez-vous de lundi ?",
                "Oui, par précaution.",
            ),
        ),
        "ar": (
            (
                "هل يمكنني تأجيل موعدي إلى الأسبوع القادم؟",
                "بالتأكيد، الأحد الساعة العاشرة؟",
                "مناسب جداً، شكراً 🌷",
                "نراك يوم الأحد.",
            ),
        ),
        "sw": (
            ("Daktari yupo leo mchana?", "Yupo kuanzia saa nane.", "Nitakuja na mtoto.", "Karibu, njoo na kadi yake."),
        ),
    },
}
"""By trade, then by language."""

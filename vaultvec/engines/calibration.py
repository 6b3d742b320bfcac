"""Fixed texts of our own, short to long, English and Korean: what a precision and a converted model are tried on."""

from __future__ import annotations

_SENTENCES = (
    "A note is worth keeping when it can be found again.",
    "회의록은 날짜와 참석자, 결정한 일을 먼저 적는다.",
    "The kettle must be descaled every two months; citric acid works better than vinegar.",
    "Gradient descent follows the slope of the loss, one small step at a time.",
    "## Shopping\n- flour, 500 g\n- eggs\n- two lemons\n- olive oil",
    "오늘은 비가 와서 산책 대신 도서관에서 책을 읽었다.",
    "def area(r):\n    return 3.14159 * r * r",
    "Backups follow the rule of three copies, on two kinds of media, one of them elsewhere.",
    "Why do we remember places better than lists? Because walking through them gives every item a seat.",
    "임베딩은 글의 뜻을 숫자의 줄로 바꾸어, 가까운 뜻이 가까운 자리에 놓이게 한다.",
    "The contract ends on 31 March 2027 unless either side gives notice three months earlier.",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
    "SELECT title, updated FROM notes WHERE folder = 'Projects' ORDER BY updated DESC;",
    "김치찌개에는 묵은 김치와 돼지고기, 두부를 넣고 약한 불에서 오래 끓인다.",
    "She argued that a city is not a tree: its parts overlap, and that is what makes it live.",
    "The bus leaves at 7:42 from stop C, and the last one back is at 23:10.",
    "Entropy counts the ways in which a thing could be otherwise and still look the same.",
    "프로젝트 일정이 늦어진 까닭은 시험 환경을 늦게 준비했기 때문이다.",
    "TODO: call the dentist, renew the passport, return the drill to Jonas.",
    "In 1854 John Snow mapped the cholera cases of Soho and found the pump in their middle.",
    "A matrix that does not fit the cache is read again and again; a small one stays.",
    "새벽에 일어나 물을 한 잔 마시고, 오늘 할 일을 세 가지만 적는다.",
    "E = m c^2 | F = m a | PV = nRT",
    "The violin is tuned in fifths, the guitar mostly in fourths.",
    "Interest that is paid on interest grows slowly at first and then faster than anyone expects.",
    "경복궁은 조선의 첫 궁궐로, 1395년에 지어졌다.",
    "When the tests pass but the users complain, the tests describe some other program.",
    "https://example.org/articles/how-to-sharpen-a-plane?page=2",
    "He left the door open, the light on, and half a cup of cold coffee on the sill.",
    "독서 모임에서 다음 달에 읽을 책은 투표로 정하기로 했다.",
    "Rye bread needs a sourdough: without acid its starch breaks down while it bakes.",
    "Antibiotics act on bacteria, not on viruses, and each needless course breeds resistance.",
)


def calibration_texts(count: int) -> list[str]:
    """`count` texts of 1 to 16 sentences, the same ones every time."""
    total = len(_SENTENCES)
    return [
        "\n".join(_SENTENCES[(i * 5 + k) % total] for k in range(1 + (i * 7) % 16))
        for i in range(count)
    ]  # fmt: skip
